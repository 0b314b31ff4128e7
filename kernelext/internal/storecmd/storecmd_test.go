package storecmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/pkg/store"
)

// filled is a store with three results.
func filled(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	do := func(name string, seed int64, value any) {
		in := store.Inputs{Seed: seed, Code: "test", Versions: map[string]string{"go": "test"}, Store: s}
		var err error
		switch v := value.(type) {
		case []byte:
			_, err = store.Do(t.Context(), name, in, func(context.Context, *store.Run) ([]byte, error) { return v, nil })
		case map[string]float64:
			_, err = store.Do(t.Context(), name, in, func(context.Context, *store.Run) (map[string]float64, error) { return v, nil })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	do("ladder/rung-1", 7, map[string]float64{"accuracy": 0.98})
	do("ladder/rung-2", 8, map[string]float64{"accuracy": 0.97})
	do("mask", 0, []byte{0x1b, '[', '2', 'J'}) // would clear a terminal
	return dir
}

func run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	var b bytes.Buffer
	err := Run(t.Context(), append([]string{"--store", dir}, args...), &b)
	return b.String(), err
}

// A command that looks at a store makes none where there is nothing.
func TestNoStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "misspelt")
	for _, args := range [][]string{{"ls"}, {"show", "x"}, {"verify"}, {"gc"}, {"export", filepath.Join(t.TempDir(), "file")}} {
		if _, err := run(t, dir, args...); err == nil || !strings.Contains(err.Error(), "expected a store") {
			t.Errorf("%v: error %v, want one that says that there is no store", args, err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Fatalf("%v made it", args)
		}
	}
	t.Setenv(store.Env, "")
	t.Setenv("ESPALIER_HOME", filepath.Join(t.TempDir(), "home"))
	var b bytes.Buffer
	if err := Run(t.Context(), []string{"ls"}, &b); err != nil || !strings.Contains(b.String(), "there is no store yet") {
		t.Errorf("on a new machine: %q, %v", b.String(), err)
	}
}

func TestCommands(t *testing.T) {
	dir := filled(t)
	content := filepath.Join(t.TempDir(), "content")
	for _, test := range []struct {
		args []string
		want []string
		not  string
	}{
		{[]string{"ls"}, []string{"ladder/rung-1", "7", "mask", "3 of 3 results"}, "quarantine"},
		{[]string{"ls", "ladder/"}, []string{"ladder/rung-2", "2 of 3 results"}, "mask"},
		{[]string{"show", "ladder/rung-1"}, []string{`"accuracy": 0.98`, `"seed": 7`, "version  go test"}, "0.97"},
		{[]string{"show", "mask"}, []string{"4 B that are no text"}, "\x1b"},
		{[]string{"show", "mask", "-o", content}, []string{"written to"}, "\x1b"},
		{[]string{"verify"}, []string{"3 results and 3 objects are whole"}, "damaged:"},
		{[]string{"gc"}, []string{"0 results, 0 objects"}, ""},
		{[]string{"gc", "--max", "0"}, []string{"removed mask", "removed ladder/rung-2", "3 results, 3 objects"}, ""},
		{[]string{"ls"}, []string{"0 of 0 results"}, "ladder"},
	} {
		out, err := run(t, dir, test.args...)
		if err != nil {
			t.Fatalf("%q: %v", test.args, err)
		}
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("%q: no %q in\n%s", test.args, want, out)
			}
		}
		if test.not != "" && strings.Contains(out, test.not) {
			t.Errorf("%q: %q in\n%q", test.args, test.not, out)
		}
	}
	if got, err := os.ReadFile(content); err != nil || string(got) != "\x1b[2J" {
		t.Errorf("content %q, %v", got, err)
	}
}

// The key's first digits choose among the results of one name.
func TestShowByKey(t *testing.T) {
	dir := filled(t)
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := s.Refs()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refs {
		if out, err := run(t, dir, "show", r.Name+"@"+r.Key[:8]); err != nil || !strings.Contains(out, r.Key) {
			t.Errorf("%s: %v\n%s", r.Name, err, out)
		}
	}
	if _, err := run(t, dir, "show", "mask@0000000000"); err == nil || !strings.Contains(err.Error(), "espalier store ls") {
		t.Errorf("no such key: %v", err)
	}
}

// What somebody else made does not steer a terminal: not by a version, not by what it was computed from, not by characters that JSON has in text as they are.
func TestShowDoesNotSteerATerminal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	const csi = "\u009b2J" // ESC [ in one character
	for name, content := range map[string]string{"json": `{"a": "` + csi + `"}`, "bytes": "{\"a\": \"\x9b2J\"}", "lines": "{\"a\":\r\n 1}"} {
		object, size, err := s.Put(func(w io.Writer) error { _, err := io.WriteString(w, content); return err })
		if err == nil {
			err = s.Bind(store.Ref{Name: name, Key: "k", Object: object, Size: size, Inputs: json.RawMessage(`{"recipe":"` + csi + `"}`), Versions: map[string]string{"go": "\x1b[2J"}})
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := run(t, dir, "show", name)
		if err != nil || strings.ContainsAny(out, "\x1b\u009b\r") || strings.Contains(out, "\x9b2J") && !strings.Contains(out, csi) || !strings.Contains(out, `\x1b[2J`) || !strings.Contains(out, `\u009b2J`) {
			t.Errorf("%s: %v\n%q", name, err, out)
		}
	}
	if out, _ := run(t, dir, "show", "lines"); !strings.Contains(out, `"a": 1`) {
		t.Errorf("lines of Windows are no reason not to show it:\n%s", out)
	}
}

// What is left of a store in which nothing runs is not said to be held by runs.
func TestCollectingAll(t *testing.T) {
	dir := filled(t)
	if out, err := run(t, dir, "gc", "--max", "0"); err != nil || strings.Contains(out, "going on") {
		t.Errorf("nothing is going on: %v\n%s", err, out)
	}
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Do(t.Context(), "live", store.Inputs{Store: s}, func(context.Context, *store.Run) (int, error) {
		out, err := run(t, dir, "gc", "--max", "0")
		if err != nil || !strings.Contains(out, "held by runs that are going on") {
			t.Errorf("a run is going on: %v\n%s", err, out)
		}
		return 1, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsSaid(t *testing.T) {
	dir := filled(t)
	objects, err := filepath.Glob(filepath.Join(dir, "objects", "*", "*"))
	if err != nil || len(objects) != 3 {
		t.Fatal(objects, err)
	}
	if err := os.Chmod(objects[0], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(objects[0], []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, dir, "verify")
	if !errors.Is(err, ErrDamaged) || !strings.Contains(out, "damaged:") || !strings.Contains(out, "missing:") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestExportAndImport(t *testing.T) {
	from, to, file := filled(t), filepath.Join(t.TempDir(), "other"), filepath.Join(t.TempDir(), "run.tar")
	if out, err := run(t, from, "export", file, "ladder"); err != nil || !strings.Contains(out, "espalier store import run.tar") {
		t.Fatal(out, err)
	}
	out, err := run(t, to, "import", file)
	if err != nil || !strings.Contains(out, "2 new results") || strings.Contains(out, "mask") {
		t.Fatal(out, err)
	}
	if out, err := run(t, to, "show", "ladder/rung-2"); err != nil || !strings.Contains(out, "0.97") {
		t.Error(out, err)
	}
	if out, err = run(t, to, "import", file); err != nil || !strings.Contains(out, "0 new results (0 B), 2 were there") {
		t.Error(out, err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var usage *nbrun.UsageError
	if _, err := run(t, from, "export", file); !errors.As(err, &usage) {
		t.Errorf("over a file: %v, want a usage error", err)
	}
	if err := os.WriteFile(file, before[:len(before)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, filepath.Join(t.TempDir(), "third"), "import", file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("half a file: %v, want an error that names it", err)
	}
}

func TestUsage(t *testing.T) {
	dir := filled(t)
	var usage *nbrun.UsageError
	for _, args := range [][]string{{}, {"no-such"}, {"ls", "a", "b"}, {"show"}, {"show", "a", "--x"}, {"verify", "a"}, {"gc", "--max", "many"}, {"gc", "--max", "-1"}, {"export"}, {"import"}} {
		if _, err := run(t, dir, args...); !errors.As(err, &usage) {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
	// A directory that is something else is not touched.
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var format *store.FormatError
	if _, err := run(t, other, "ls"); !errors.As(err, &format) {
		t.Errorf("another directory: %v, want a *store.FormatError", err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"2GB": 2e9, "1.5 mb": 1.5e6, "1024": 1024, "0": 0, "7b": 7, "3TB": 3e12} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GB", "-1", "1e300GB", "NaN", "2 XB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 KB", 1_550_000: "1.6 MB", 2e9: "2.0 GB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
