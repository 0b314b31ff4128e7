package bench

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSeeds(t *testing.T) {
	got, err := Seeds("-seeds", "3, 1,,-2")
	if diff := cmp.Diff([]int64{3, 1, -2}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	for _, bad := range []string{"", " , ", "1,x", "1,1", "1.5"} {
		if _, err := Seeds("-seeds", bad); err == nil || !strings.Contains(err.Error(), "-seeds") {
			t.Errorf("%q: %v, expected an error that names the option", bad, err)
		}
	}
}

// A peer answers line by line; one that dies, or is not there, is an error that names it.
func TestPeer(t *testing.T) {
	shell := func(script string) (*Peer, error) { return StartPeer(t.Context(), "peer", "/bin/sh", "-c", script) }
	p, err := shell("echo 1.2.3; while read n; do test $n = die && exit 1; echo got $n; done")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if p.Hello != "1.2.3" {
		t.Errorf("its first line is %q, want 1.2.3", p.Hello)
	}
	if line, err := p.Ask("7"); line != "got 7" || err != nil {
		t.Errorf("it answers %q, %v, want got 7", line, err)
	}
	if _, err := p.Ask("die"); err == nil || !strings.HasPrefix(err.Error(), "peer: the process died") {
		t.Errorf("when it dies: %v", err)
	}
	if _, err := shell("exit 1"); err == nil {
		t.Error("a peer that dies at once is no error")
	}
	if _, err := StartPeer(t.Context(), "peer", filepath.Join(t.TempDir(), "missing")); err == nil || !strings.HasPrefix(err.Error(), "peer: ") {
		t.Errorf("a peer that is not there: %v", err)
	}
}
