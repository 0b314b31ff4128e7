package nbrun

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const png = "iVBORw0KGgo="

func figureOutput(without ...string) map[string]any {
	data := map[string]any{"image/png": png, "image/svg+xml": "<svg/>", "text/plain": "a figure"}
	for _, mime := range without {
		delete(data, mime)
	}
	return map[string]any{"output_type": "display_data", "data": data, "metadata": map[string]any{}}
}

// withHTML is a figure that has an HTML form as well.
func withHTML(content string) map[string]any {
	f := figureOutput()
	f["data"].(map[string]any)["text/html"] = content
	return f
}

func stream(name, text string) map[string]any {
	return map[string]any{"output_type": "stream", "name": name, "text": text}
}

func display(mime, content string) map[string]any {
	return map[string]any{"output_type": "display_data", "data": map[string]any{mime: content, "text/plain": "text"}, "metadata": map[string]any{}}
}

// notebook makes a notebook of one code cell with outputs.
func notebook(t *testing.T, metadata map[string]any, tags []string, outputs ...map[string]any) *Notebook {
	t.Helper()
	if outputs == nil {
		outputs = []map[string]any{}
	}
	return ofCells(t, metadata, map[string]any{"cell_type": "code", "source": "%%\nrun()", "execution_count": 7, "metadata": map[string]any{"tags": tags}, "outputs": outputs})
}

func ofCells(t *testing.T, metadata map[string]any, cells ...map[string]any) *Notebook {
	t.Helper()
	data, err := json.Marshal(map[string]any{"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells})
	if err != nil {
		t.Fatal(err)
	}
	nb, err := read("test.ipynb", data)
	if err != nil {
		t.Fatal(err)
	}
	return nb
}

// GoNB says ok in most of these cases.
func TestJudge(t *testing.T) {
	expect := func(figures, tables int) map[string]any {
		return map[string]any{"espalier": map[string]any{"expect": map[string]any{"figures": figures, "tables": tables}}}
	}
	none := map[string]any{}
	ok := map[int]ran{0: {status: "ok"}}
	for _, test := range []struct {
		name string
		nb   *Notebook
		runs map[int]ran
		want string // part of the one failure; "": none
	}{
		{"fine", notebook(t, expect(1, 0), nil, stream("stdout", "done\n"), figureOutput()), map[int]ran{0: {"ok", 1}}, ""},
		{"an error", notebook(t, none, nil, map[string]any{"output_type": "error", "ename": "ERROR", "evalue": "undefined: x", "traceback": []string{}}), map[int]ran{0: {status: "error"}}, "undefined: x"},
		{"a failing shell command", notebook(t, none, nil, stream("stderr", "exit status 3\n")), ok, "exit status 3"},
		{"a program that was killed", notebook(t, none, nil, stream("stderr", "signal: killed\n")), ok, "signal: killed"},
		{"an unknown magic", notebook(t, none, nil, stream("stderr", `"%nosuchmagic" unknown or not implemented yet.`)), ok, "nosuchmagic"},
		{"talk of an exit status", notebook(t, none, nil, stream("stdout", "it printed: exit status 3, all is well\n")), ok, ""},
		{"a cell that did not run", notebook(t, none, nil), map[int]ran{}, "did not run"},
		{"a lost display", notebook(t, none, nil, figureOutput()), map[int]ran{0: {"ok", 2}}, "1 of 2 displays were lost"},
		{"a figure without SVG", notebook(t, none, nil, figureOutput("image/svg+xml")), ok, "image/svg+xml"},
		{"a figure without PNG", notebook(t, none, nil, figureOutput("image/png")), ok, "image/png"},
		{"a figure without text", notebook(t, none, nil, figureOutput("text/plain")), ok, "text/plain"},
		{"a missing figure", notebook(t, expect(2, 0), nil, figureOutput()), ok, "1 figures came out, the notebook says 2"},
		{"a missing table", notebook(t, expect(0, 1), nil), ok, "0 tables came out, the notebook says 1"},
		{"a table", notebook(t, expect(0, 1), nil, display("text/html", "<table></table>")), ok, ""},
		{"a script", notebook(t, none, nil, display("text/html", "<SCRIPT>x</SCRIPT>")), ok, "script"},
		{"a script beside a picture that does not stand in its place", notebook(t, none, nil, withHTML("<script>x</script>")), ok, "script"},
		{"a script that makes more of a picture", notebook(t, none, nil, withHTML(`<img src="data:image/png;base64,x"><script>x</script>`)), ok, ""},
		{"the network", notebook(t, none, nil, display("text/html", `<img src="https://example.org/x.png">`)), ok, "network"},
		{"a link is no picture", notebook(t, none, nil, display("text/html", `<p>see example.org</p>`)), ok, ""},
		{"a path of the machine", notebook(t, none, nil, stream("stdout", "saved to /home/someone/x\n")), ok, "/home/someone"},
		{"an expected failure", notebook(t, none, []string{"raises-exception"}, stream("stderr", "exit status 1\n")), map[int]ran{0: {status: "error"}}, ""},
		{"an expected failure that did not come", notebook(t, none, []string{"raises-exception"}), ok, "did not fail"},
	} {
		_, failures := judge(test.nb, test.runs, 1000, []string{"/home/someone"})
		switch {
		case test.want == "" && len(failures) > 0:
			t.Errorf("%s: failures %q, want none", test.name, failures)
		case test.want != "" && (len(failures) != 1 || !strings.Contains(failures[0].String(), test.want)):
			t.Errorf("%s: failures %q, want one with %q", test.name, failures, test.want)
		}
	}
	if _, failures := judge(notebook(t, none, nil), ok, maxSize+1, nil); len(failures) != 1 {
		t.Errorf("a notebook that is too large: %q", failures)
	}
}

func TestReadRefusesWhatIsNoNotebook(t *testing.T) {
	for _, text := range []string{"", "no JSON", "[]", "{}", `{"nbformat": 3, "cells": []}`, `{"nbformat": 4}`, `{"nbformat": 4, "cells": [{"cell_type": "x"}]}`, `{"nbformat": 4, "cells": [{"cell_type": "code", "outputs": [1]}]}`} {
		if _, err := read("x.ipynb", []byte(text)); err == nil || !strings.Contains(err.Error(), "x.ipynb") {
			t.Errorf("read(%q) = %v, want an error that names the file", text, err)
		}
	}
}

func TestNormalizedIsStable(t *testing.T) {
	nb := notebook(t, map[string]any{"kernelspec": map[string]any{"name": "other"}, "espalier": map[string]any{"expect": map[string]any{"figures": 0}}}, nil,
		map[string]any{"output_type": "execute_result", "execution_count": 7, "data": map[string]any{"text/html": "<b>&</b>"}, "metadata": map[string]any{}})
	first, err := nb.normalized()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"execution_count": 1`, `"name": "espalier"`, `<b>&</b>`, `"figures": 0`} {
		if !strings.Contains(string(first), want) {
			t.Errorf("the notebook lacks %s:\n%s", want, first)
		}
	}
	again, err := read("test.ipynb", first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := again.normalized()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(first), string(second)); diff != "" {
		t.Errorf("a second pass changes it (-first +second):\n%s", diff)
	}
}

func TestWriteFileLeavesNothingHalfWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "nb.ipynb")
	if err := writeFile(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	// A directory in the way: the write fails, and what was there stays.
	blocked := filepath.Join(dir, "blocked")
	if err := os.MkdirAll(filepath.Join(blocked, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(blocked, []byte("two")); err == nil {
		t.Error("writing over a directory gave no error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("litter: %v", entries)
	}
}
