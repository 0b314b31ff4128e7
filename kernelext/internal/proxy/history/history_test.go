package history

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sources(t *testing.T, h *History, q Query) []string {
	t.Helper()
	found, err := h.Find(q)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range found {
		list = append(list, e.Source)
	}
	return list
}

func open(t *testing.T, path string, cells ...string) *History {
	t.Helper()
	h, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cells {
		if err := h.Add(i+1, c); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestFind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "history")
	open(t, path, "a := 1", "b := 2")
	h := open(t, path, "1 + 2", "a := 1", "f()\ng()")
	if h.Session() != 2 {
		t.Errorf("session %d, want 2", h.Session())
	}
	two, one := 2, 1
	for _, c := range []struct {
		name string
		q    Query
		want []string
	}{
		{"tail", Query{Access: "tail", N: &two}, []string{"a := 1", "f()\ng()"}},
		{"this session", Query{Access: "range", Start: 1, Stop: &two}, []string{"1 + 2"}},
		{"all of the one before", Query{Access: "range", Session: -1}, []string{"a := 1", "b := 2"}},
		{"by its number", Query{Access: "range", Session: 1, Start: 2}, []string{"b := 2"}},
		{"search", Query{Access: "search", Pattern: "1?+*"}, []string{"1 + 2"}},
		{"search over sessions", Query{Access: "search", Pattern: "a*"}, []string{"a := 1", "a := 1"}},
		{"search, each once", Query{Access: "search", Pattern: "a*", Unique: true}, []string{"a := 1"}},
		{"search, the last", Query{Access: "search", Pattern: "*", N: &one}, []string{"f()\ng()"}},
		{"search over lines", Query{Access: "search", Pattern: "f*g*"}, []string{"f()\ng()"}},
		{"nothing", Query{Access: "search", Pattern: "z"}, nil},
	} {
		if diff := cmp.Diff(c.want, sources(t, h, c.q)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	h.Result(1, "3")
	found, err := h.Find(Query{Access: "range", Start: 1, Stop: &two})
	if err != nil || len(found) != 1 || found[0].Output != "3" {
		t.Errorf("found %v (error %v), want the result 3", found, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v (error %v), want 0600: what was run is nobody else's concern", info.Mode(), err)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a*c", "abbc", true}, {"a*c", "abcd", false}, {"?", "é", true}, {"[a-c]x", "bx", true}, {"[a-c]x", "dx", false},
		{"[", "[", true}, {strings.Repeat("a*", 30) + "b", strings.Repeat("a", 200), false},
	} {
		if got := glob(c.pattern, c.text); got != c.want {
			t.Errorf("glob(%q, %q) = %v, want %v", c.pattern, c.text, got, c.want)
		}
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	open(t, path, "a")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("{\"s\":1,\"n\":2,\"src\":\"half"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	h := open(t, path, "b")
	if diff := cmp.Diff([]string{"a", "b"}, sources(t, h, Query{Access: "tail"})); diff != "" || h.Session() != 2 {
		t.Errorf("what is whole (-want +got):\n%s", diff)
	}
}

func TestFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := open(t, path)
	long := strings.Repeat("x", maxSource-1)
	for i := range maxFile/maxSource + 2 {
		if err := h.Add(i+1, long); err != nil {
			t.Fatal(err)
		}
	}
	next := open(t, path, "last")
	if info, err := os.Stat(path); err != nil || info.Size() > maxFile {
		t.Errorf("the file has %d bytes (error %v), at most %d are allowed", info.Size(), err, maxFile)
	}
	if next.Session() != 2 {
		t.Errorf("session %d after the file was shortened, want 2", next.Session())
	}
}
