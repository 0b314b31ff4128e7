package setup

import (
	"os"
	"strings"
	"testing"
)

// A result must not be mixed with what a command says of its downloads.
func TestRunReturnsStandardOutputOnly(t *testing.T) {
	out, err := run(t.Context(), "", os.Environ(), "sh", "-c", "echo downloading >&2; echo result")
	if err != nil || out != "result\n" {
		t.Errorf("run = %q, %v; want the result alone", out, err)
	}
	_, err = run(t.Context(), "", os.Environ(), "sh", "-c", "echo what went wrong >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "what went wrong") {
		t.Errorf("run = %v, want what it printed", err)
	}
}
