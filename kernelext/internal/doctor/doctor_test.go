package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

func TestLine(t *testing.T) {
	for _, test := range []struct {
		finding finding
		want    string
	}{
		{finding{"gonb", "v1", nil, "run it"}, "found    gonb         v1"},
		{finding{"gonb", "", fmt.Errorf("open x: %w", os.ErrNotExist), "run it"}, "missing  gonb         → run it"},
		{finding{"gonb", "v0", errors.New("found v0, expected v1"), "run it"}, "wrong    gonb         found v0, expected v1 → run it"},
	} {
		if got := test.finding.line(); got != test.want {
			t.Errorf("line = %q, want %q", got, test.want)
		}
	}
}

func TestNothingSetUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	t.Setenv("ESPALIER_HOME", dir)
	var out bytes.Buffer
	if err := Run(t.Context(), &out); !errors.Is(err, ErrUnwell) {
		t.Errorf("error = %v, want ErrUnwell", err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, name := range []string{"gonb", "goimports", "gopls", "staticcheck", "JupyterLab", "XLA plugin", "kernel", "home"} {
		found := false
		for _, line := range lines {
			if strings.HasPrefix(line, "missing  "+name+" ") {
				found = strings.Contains(line, byRunningSetup)
			}
		}
		if !found {
			t.Errorf("no line says that %s is missing and that set-up mends it:\n%s", name, &out)
		}
	}
	if strings.Contains(out.String(), "a cell") {
		t.Error("a cell was tried without a kernel")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("doctor made %s", dir)
	}
}

func TestCheckSpec(t *testing.T) {
	kernel := filepath.Join(t.TempDir(), "gonb")
	if err := os.WriteFile(kernel, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ spec, want string }{
		"good":            {`{"argv":["` + kernel + `"],"env":{"ESPALIER_PROJECT":"/project"}}`, ""},
		"no JSON":         {`{"argv":`, "unexpected end"},
		"no argv":         {`{}`, "starts nothing"},
		"no such program": {`{"argv":["` + kernel + `2"],"env":{"ESPALIER_PROJECT":"/project"}}`, "no such file"},
		"another project": {`{"argv":["` + kernel + `"],"env":{"ESPALIER_PROJECT":"/else"}}`, "/else"},
	} {
		t.Run(name, func(t *testing.T) {
			p := setup.Paths{Project: "/project", JupyterData: t.TempDir()}
			if err := os.MkdirAll(p.SpecDir(), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(p.SpecDir(), "kernel.json"), []byte(test.spec), 0o644); err != nil {
				t.Fatal(err)
			}
			err := checkSpec(p)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
		})
	}
}
