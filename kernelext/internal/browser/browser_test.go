package browser

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

func TestWithoutABrowser(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var missing *MissingError
	err := Run(t.Context(), setup.Paths{}, "", func(c Check) { t.Errorf("checked %v", c) })
	if !errors.As(err, &missing) || missing.Command != "chromium" || !strings.Contains(err.Error(), "apt-get install chromium") {
		t.Errorf("got %v, want a *MissingError that says how to get one", err)
	}
}

// The driver answers with a value, or with an error that is said.
func TestCall(t *testing.T) {
	driver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Script string
			Args   []any
		}
		if r.Method != http.MethodPost || r.URL.Path != "/session/7/execute/sync" || json.NewDecoder(r.Body).Decode(&body) != nil || body.Args == nil {
			t.Errorf("it was asked %s %s with %v", r.Method, r.URL.Path, body)
		}
		switch body.Script {
		case "good":
			w.Write([]byte(`{"value": [1, 2]}`))
		case "bad":
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte(`{"value": {"error": "javascript error", "message": "x is not defined"}}`))
		default:
			w.Write([]byte("<html>"))
		}
	}))
	defer driver.Close()
	p := &page{session: driver.URL + "/session/7"}
	var value []int
	if err := p.run(t.Context(), "good", &value); err != nil || len(value) != 2 || value[1] != 2 {
		t.Errorf("got %v, %v", value, err)
	}
	for script, want := range map[string]string{"bad": "javascript error: x is not defined", "nothing": "<html>"} {
		if err := p.run(t.Context(), script, &value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", script, err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.run(ended, "good", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestStarted(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo hello; echo on port 4711 >&2; cat")
	setup.OwnGroup(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	m, err := started(cmd, regexp.MustCompile(`on port (\d+)`))
	if err != nil || m[1] != "4711" {
		t.Errorf("got %v, %v", m, err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := started(exec.CommandContext(t.Context(), "sh", "-c", "echo no"), regexp.MustCompile("on port")); err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("got %v, want that it ended at once", err)
	}
}

func TestNotebook(t *testing.T) {
	data, err := notebook("espalier", training, sweep)
	if err != nil {
		t.Fatal(err)
	}
	var nb struct{ Cells []struct{ Source, ID string } }
	if err := json.Unmarshal(data, &nb); err != nil || len(nb.Cells) != 2 || nb.Cells[0].ID == nb.Cells[1].ID || !strings.Contains(nb.Cells[0].Source, "Steps: 12000") {
		t.Errorf("%v: %.100s", err, data)
	}
}
