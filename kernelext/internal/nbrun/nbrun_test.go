package nbrun

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

// notifier cancels when the second cell, of which it is told when it is sent, has begun.
type notifier struct {
	bytes.Buffer
	cancel func()
}

func (n *notifier) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "[2/3]") {
		time.AfterFunc(time.Second, n.cancel)
	}
	return n.Buffer.Write(b)
}

// What was put out before an interrupt is written. Any kernel will do: JupyterLab brings one.
func TestInterruptedNotebookIsWritten(t *testing.T) {
	p, err := setup.Locate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.Python); err != nil {
		t.Skip("the set-up is not there")
	}
	dir := t.TempDir()
	path, output := filepath.Join(dir, "n.ipynb"), filepath.Join(dir, "out.ipynb")
	cell := func(source string) string {
		return `{"cell_type": "code", "execution_count": null, "id": "` + source[:5] + `", "metadata": {}, "outputs": [], "source": "` + source + `"}`
	}
	text := `{"cells": [` + cell("print(1)") + "," + cell("import time; time.sleep(60)") + "," + cell("printed = 3") + `], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	progress := &notifier{cancel: cancel}
	if _, err := Execute(ctx, p, path, Options{Output: output, Kernel: "python3"}, progress); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was interrupted; it said:\n%s", err, progress)
	}
	data, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	nb, err := read(output, data)
	if err != nil {
		t.Fatal(err)
	}
	if got := nb.Cells[0].said(); len(got) != 1 || got[0] != "1" || nb.Cells[2].raw["execution_count"] != nil {
		t.Errorf("it holds %s", data)
	}
	if !strings.Contains(progress.String(), "interrupted; "+output+" holds what was done") {
		t.Errorf("it said %q", progress)
	}
}

func TestDestinations(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a", "n.ipynb"), filepath.Join(dir, "b", "n.ipynb")
	for _, path := range []string{a, b} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "out")
	for _, c := range []struct {
		name string
		dir  string
		same bool
		want []string
	}{
		{"in place", "", false, []string{a, b}},
		{"compared", "", true, []string{"", ""}},
	} {
		got, err := destinations([]string{a, b}, c.dir, c.same)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got), error %v:\n%s", c.name, err, diff)
		}
	}
	var usage *UsageError
	if _, err := destinations([]string{a, b}, out, false); !errors.As(err, &usage) {
		t.Errorf("two of one name: error %v, want a *UsageError", err)
	}
	got, err := destinations([]string{a}, out, true)
	if diff := cmp.Diff([]string{filepath.Join(out, "n.ipynb")}, got); diff != "" || err != nil {
		t.Errorf("to a directory (-want +got), error %v:\n%s", err, diff)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
		t.Errorf("%v is left in the directory (error %v)", left, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var output *OutputError
	if _, err := destinations([]string{a}, filepath.Join(file, "sub"), false); !errors.As(err, &output) {
		t.Errorf("below a file: error %v, want an *OutputError", err)
	}
	var format *FormatError
	if _, err := load(dir); !errors.As(err, &format) {
		t.Errorf("a directory: error %v, want a *FormatError", err)
	}
}
