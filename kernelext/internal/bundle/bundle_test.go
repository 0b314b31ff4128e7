package bundle

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/kernelext/internal/setup"
	"github.com/espalier-ml/espalier/pkg/store/archive"
)

const plain = `{"cells": [{"cell_type": "markdown", "source": "# Pruning"}, {"cell_type": "code", "source": "1+1", "outputs": []}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}`

// npy is an array of four bytes as NumPy writes it, of a type.
func npy(descr string) string {
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (4,), }\n", descr)
	return "\x93NUMPY\x01\x00" + string([]byte{byte(len(header)), 0}) + header + "1234"
}

func zipOf(name, content string) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		panic(err)
	}
	return b.String()
}

// run is what a comparison leaves in its directory, and then some.
var layout = map[string]string{
	"records.jsonl":                                 "{\"recipe\":\"magnitude\"}\n{\"torn",
	"manifests/0123456789abcdef.json":               `{"version": 1}`,
	"manifests/fedcba9876543210.json":               `{"version": 1, "seed": 2}`,
	"masks/seed 1.masks":                            maskMagic + "\x02\x00\x00\x00{}",
	"table.csv":                                     "sparsity,accuracy\n",
	"scores.npy":                                    npy("<f4"),
	"scores.npz":                                    zipOf("a.npy", npy("|u1")),
	"dense/ab/step-000000010/state.json":            "{}",
	"dense/ab/step-000000010/variables.safetensors": "weights",
	"dense/ab/lock":                                 "",
	".writing-1/records.jsonl":                      "",
	"model.pt":                                      "PK",
	"large.json":                                    strings.Repeat(" ", 3000),
	"notes.html":                                    "<script>",
}

// kept are the names of layout that go into a bundle.
var kept = []string{
	"manifests/0123456789abcdef.json", "manifests/fedcba9876543210.json", "masks/seed 1.masks", "records.jsonl", "scores.npy", "scores.npz", "table.csv",
}

// project makes a project with a notebook and a directory of runs, and changes into it.
func project(t testing.TB, notebook string) {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "go.mod", "module example.org/x\n\ngo 1.26\n\nrequire github.com/gomlx/gomlx v0.28.2\n\nrequire (\n\texample.org/y v1.0.0 // indirect\n)\n")
	write(t, "nb.ipynb", notebook)
	for name, content := range layout {
		write(t, "state/compare/"+name, content)
	}
}

func write(t testing.TB, name, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func exported(t testing.TB, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := Export(t.Context(), append([]string{"nb.ipynb", "--run", "state/compare", "--limit", "2KiB"}, args...), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// below is what is below a directory, content by name.
func below(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[filepath.ToSlash(name)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// held is what a bundle of the project holds, besides its index.
func held(notebook string) map[string]string {
	all := map[string]string{"notebooks/nb.ipynb": notebook}
	for _, name := range kept {
		all["runs/compare/"+name] = layout[name]
	}
	return all
}

func TestExportThenOpen(t *testing.T) {
	project(t, plain)
	said := exported(t, "-o", "one.tar.gz")
	for _, want := range []string{"notebook  nb.ipynb", "manifest  2", "records   1", "masks     1", "result    3", "are checkpoints", "hidden names", "is a pickle", "safetensors", "(--limit)", "of no kind"} {
		if !strings.Contains(said, want) {
			t.Errorf("export does not say %q:\n%s", want, said)
		}
	}
	var out strings.Builder
	if err := Open(t.Context(), []string{"one.tar.gz"}, &out); err != nil {
		t.Fatal(err)
	}
	got := below(t, "one")
	var x Index
	if err := json.Unmarshal([]byte(got[indexName]), &x); err != nil {
		t.Fatal(err)
	}
	delete(got, indexName)
	if diff := cmp.Diff(held(plain), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	sum := sha256.Sum256([]byte(plain))
	if diff := cmp.Diff(File{"notebooks/nb.ipynb", Notebook, int64(len(plain)), hex.EncodeToString(sum[:])}, x.Files[0]); diff != "" {
		t.Errorf("the notebook's entry, -want +got:\n%s", diff)
	}
	if x.Versions["github.com/gomlx/gomlx"] != "v0.28.2" || x.Versions["example.org/y"] != "v1.0.0" || x.Versions["go"] == "" || x.Versions["platform"] == "" {
		t.Errorf("versions %v", x.Versions)
	}
	for _, want := range []string{"Nothing in it was executed", "espalier run one/notebooks/nb.ipynb", "espalier replay one/runs/compare/manifests/0123456789abcdef.json", "2 manifests", "gomlx v0.28.2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("open does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "warning") {
		t.Errorf("open warns of a plain notebook:\n%s", out.String())
	}
	entries, err := os.ReadDir(".")
	if err != nil || len(entries) != 5 { // go.mod nb.ipynb one one.tar.gz state
		t.Errorf("something else is left: %v, %v", entries, err)
	}
}

func TestTheSameInputGivesTheSameBytes(t *testing.T) {
	project(t, plain)
	exported(t, "-o", "one.tar.gz")
	exported(t, "-o", "two.tar.gz")
	exported(t, "-o", "two.tar.gz") // in place of the former
	one, err := os.ReadFile("one.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.ReadFile("two.tar.gz"); err != nil || !bytes.Equal(one, two) {
		t.Errorf("%d and %d bytes differ, %v", len(one), len(two), err)
	}
}

// Without --run, the runs are those that the notebook names and that are there.
func TestRunsThatTheNotebookNames(t *testing.T) {
	cells := `{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["a := kernelext.Dir(\"mine\")\n", "b := kernelext.Dir(\"mine/deeper\")"]},
		{"cell_type": "code", "source": "kernelext.Dir(\"../up\"); kernelext.Dir(\"missing\"); kernelext.Dir(\"empty\"); kernelext.Dir(name); kernelext.Dir(\"mine\")"}]}`
	project(t, cells)
	t.Setenv("ESPALIER_STATE", "states")
	for name, content := range map[string]string{
		"states/mine/records.jsonl": "1", "states/mine/deeper/table.csv": "2", "states/other/records.jsonl": "3", "up/records.jsonl": "4", "states/empty/x.bin": "5",
	} {
		write(t, name, content)
	}
	var out strings.Builder
	if err := errors.Join(Export(t.Context(), []string{"nb.ipynb"}, &out), Open(t.Context(), []string{"nb.tar.gz"}, io.Discard)); err != nil {
		t.Fatal(err)
	}
	got := below(t, "nb")
	delete(got, indexName)
	want := map[string]string{"notebooks/nb.ipynb": cells, "runs/mine/records.jsonl": "1", "runs/mine/deeper/table.csv": "2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s\n%s", diff, out.String())
	}
	t.Setenv("ESPALIER_STATE", "nowhere")
	out.Reset()
	if err := Export(t.Context(), []string{"nb.ipynb"}, &out); err != nil || !strings.Contains(out.String(), "it holds no runs") {
		t.Errorf("%v, %s", err, out.String())
	}
}

func TestTwoRunsOfOneName(t *testing.T) {
	project(t, plain)
	write(t, "other/compare/records.jsonl", "{}\n")
	exported(t, "other/compare", "-o", "one.tar.gz") // as a shell makes it of a pattern
	if err := Open(t.Context(), []string{"-o", "deep/er", "one.tar.gz"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	want := held(plain)
	want["runs/compare-2/records.jsonl"] = "{}\n"
	got := below(t, "deep/er")
	delete(got, indexName)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDamagedBundles(t *testing.T) {
	project(t, plain)
	exported(t, "-o", "one.tar.gz")
	whole, err := os.ReadFile("one.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, data []byte, must bool) {
		write(t, "damaged.tar.gz", string(data))
		err := Open(t.Context(), []string{"damaged.tar.gz", "-o", "opened"}, io.Discard)
		var a *archive.Error
		var b *Error
		switch {
		case err == nil && must:
			t.Errorf("%s: opened", what)
		case err == nil:
			got := below(t, "opened")
			delete(got, indexName)
			if diff := cmp.Diff(held(plain), got); diff != "" {
				t.Errorf("%s: opened as something else, -want +got:\n%s", what, diff)
			}
			if err := os.RemoveAll("opened"); err != nil {
				t.Fatal(err)
			}
		case !errors.As(err, &a) && !errors.As(err, &b):
			t.Errorf("%s: want a typed error, got %v", what, err)
		}
		entries, err := os.ReadDir(".")
		if err != nil || len(entries) != 5 { // go.mod nb.ipynb one.tar.gz damaged.tar.gz state
			t.Fatalf("%s: something is left: %v, %v", what, entries, err)
		}
	}
	for i := range 64 {
		at := i * len(whole) / 64
		try(fmt.Sprint("cut at ", at), whole[:at], true)
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << (i % 8)
		try(fmt.Sprint("flipped at ", at), flipped, false)
	}
}

// forge returns a bundle of files, with the index that fits them after change has been at it.
func forge(t *testing.T, files map[string]string, change func(x *Index)) []byte {
	t.Helper()
	x := Index{Version: version, Notebook: "nb.ipynb", Versions: map[string]string{"go": "go1"}}
	var all []archive.File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		sum := sha256.Sum256([]byte(content))
		role, err := kindOf(name, strings.NewReader(content), int64(len(content)))
		if err != nil {
			role = Result
		}
		x.Files = append(x.Files, File{name, role, int64(len(content)), hex.EncodeToString(sum[:])})
		all = append(all, archive.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }})
	}
	if change != nil {
		change(&x)
	}
	text, err := x.encode()
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, archive.File{Name: indexName, Size: int64(len(text)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }})
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := errors.Join(archive.Write(z, all), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestForgedBundles(t *testing.T) {
	with := func(name, content string) map[string]string {
		return map[string]string{"notebooks/nb.ipynb": plain, name: content}
	}
	at := func(change func(f *File)) func(x *Index) { return func(x *Index) { change(&x.Files[1]) } }
	records := with("runs/r/records.jsonl", "{}\n")
	for name, c := range map[string]struct {
		files  map[string]string
		change func(x *Index)
		want   string // "": it is opened
	}{
		"nothing forged":     {records, nil, ""},
		"newer":              {records, func(x *Index) { x.Version = 2 }, "newer Espalier"},
		"older":              {records, func(x *Index) { x.Version = 0 }, "version 0, expected 1"},
		"digest":             {records, at(func(f *File) { f.SHA256 = strings.Repeat("0", 64) }), "its index says 000"},
		"no digest":          {records, at(func(f *File) { f.SHA256 = "" }), "size or digest"},
		"size":               {records, at(func(f *File) { f.Size++ }), "3 bytes, its index says 4"},
		"negative size":      {records, at(func(f *File) { f.Size = -1 }), "size or digest"},
		"role":               {records, at(func(f *File) { f.Role = Masks }), "is records, its index says masks"},
		"unknown role":       {records, at(func(f *File) { f.Role = "program" }), "unknown role"},
		"not in the index":   {records, func(x *Index) { x.Files = x.Files[:1] }, "not in its index"},
		"not in the archive": {records, func(x *Index) { x.Files = append(x.Files, File{"runs/z", Result, 0, strings.Repeat("0", 64)}) }, "not in the bundle"},
		"twice in the index": {records, func(x *Index) { x.Files = append(x.Files, x.Files[1]) }, "in order"},
		"not in order":       {records, func(x *Index) { slices.Reverse(x.Files) }, "in order"},
		"another notebook":   {records, func(x *Index) { x.Notebook = "other.ipynb" }, "second notebook"},
		"notebook elsewhere": {with("runs/r/other.ipynb", plain), nil, "second notebook"},
		"no notebook":        {map[string]string{"runs/r/records.jsonl": "{}\n"}, nil, "no notebook"},
		"elsewhere":          {with("other/records.jsonl", "{}\n"), nil, "not below runs/"},
		"steered terminal":   {records, func(x *Index) { x.Versions["go"] = "\x1b[2J" }, "can't be printed"},
		"unprintable name":   {records, at(func(f *File) { f.Name = "runs/\x1b[2J" }), "can't be printed"},
		"first is another":   {with("a.json", "{}"), nil, "not the first entry"},
		"no nbformat 4":      {map[string]string{"notebooks/nb.ipynb": `{"nbformat": 3}`}, nil, "nbformat is not 4"},
		"no JSON":            {map[string]string{"notebooks/nb.ipynb": "print(1)"}, nil, "no JSON"},
		"pickle, .pkl":       {with("runs/r/a.pkl", "x"), nil, "safetensors"},
		"pickle, .pt":        {with("runs/r/a.PT", "x"), nil, "safetensors"},
		"pickle, .pth":       {with("runs/r/a.pth", "x"), nil, "safetensors"},
		"pickle, .joblib":    {with("runs/r/a.joblib", "x"), nil, "safetensors"},
		"pickle, protocol 2": {with("runs/r/a.json", "\x80\x02}."), nil, "protocol 2"},
		"pickle, protocol 5": {with("runs/r/a.json", "\x80\x05}."), nil, "protocol 5"},
		"pickle in a zip":    {with("runs/r/a.json", zipOf("archive/data.pkl", "x")), nil, `"data.pkl" in a zip`},
		"pickle in a tail":   {with("runs/r/a.txt", "text"+zipOf("archive/data.pkl", "x")), nil, `"data.pkl" in a zip`},
		"damaged zip":        {with("runs/r/a.npz", "PK\x03\x04"), nil, "damaged zip"},
		"other zip":          {with("runs/r/a.json", zipOf("a.txt", "x")), nil, "is a zip file"},
		".npy of objects":    {with("runs/r/a.npy", npy("|O")), nil, "not of plain numbers"},
		".npy, escaped":      {with("runs/r/a.npy", npy(`|\x4f`)), nil, "not of plain numbers"},
		".npy, no array":     {with("runs/r/a.npy", "text"), nil, "not of plain numbers"},
		".npz of objects":    {with("runs/r/a.npz", zipOf("a.npy", npy("|O"))), nil, "not of plain numbers"},
		".npz of numbers":    {with("runs/r/a.npz", zipOf("a.npy", npy("<f8"))), nil, ""},
		"a program":          {with("runs/r/a.sh", "rm -rf /"), nil, "of no kind"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			write(t, "x.tgz", string(forge(t, c.files, c.change)))
			var out strings.Builder
			err := Open(t.Context(), []string{"x.tgz", "-o", "opened"}, &out)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var b *Error
			var n *nbrun.FormatError
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &b) && !errors.As(err, &n) || out.Len() > 0 {
				t.Errorf("want a typed error with %q, got %v and %q", c.want, err, out.String())
			}
			if entries, err := os.ReadDir("."); err != nil || len(entries) != 1 {
				t.Errorf("something is left: %v, %v", entries, err)
			}
		})
	}
}

func TestIndexIsOneJSONValue(t *testing.T) {
	for text, want := range map[string]string{
		"": "no index", "null": "version 0", "[]": "no index", `{"version": 1} {}`: "no index", `{"version": 1, "run": "rm"}`: "unknown field", `{"version": 1}`: "no notebook", `{"version": 9, "new": 1}`: "newer",
	} {
		var own *Error
		if _, err := decode([]byte(text)); !errors.As(err, &own) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an *Error with %q, got %v", text, want, err)
		}
	}
}

func TestScriptsAreSaid(t *testing.T) {
	output := func(data string) string {
		return `{"nbformat": 4, "cells": [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": [{"output_type": "display_data", "data": ` + data + `}]}]}`
	}
	for name, c := range map[string]struct {
		notebook string
		warned   bool
	}{
		"HTML with a script":  {output(`{"text/html": "<b><SCRIPT>x</script>"}`), true},
		"in lines":            {output(`{"text/html": ["<scr", "ipt>"]}`), true},
		"JavaScript":          {output(`{"application/javascript": "x"}`), true},
		"SVG with a script":   {output(`{"image/svg+xml": "<svg><script/></svg>"}`), true},
		"an event":            {output(`{"text/html": "<img src=x\nonerror=\"x()\">"}`), true},
		"an address":          {output(`{"text/html": "<a href='JavaScript:x()'>"}`), true},
		"one = two":           {output(`{"text/html": "<b>for</b> one = two"}`), false},
		"HTML without":        {output(`{"text/html": "<b>script</b>"}`), false},
		"text about a script": {output(`{"text/plain": "<script>"}`), false},
		"no data":             {output(`null`), false},
	} {
		t.Run(name, func(t *testing.T) {
			project(t, c.notebook)
			exported(t, "-o", "one.tar.gz")
			var out strings.Builder
			if err := Open(t.Context(), []string{"one.tar.gz"}, &out); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(out.String(), "scripts, in cell 2. Nothing was stripped"); got != c.warned {
				t.Errorf("warned: %t, want %t:\n%s", got, c.warned, out.String())
			}
			if got := below(t, "one")["notebooks/nb.ipynb"]; got != c.notebook {
				t.Errorf("the notebook was changed to %s", got)
			}
		})
	}
}

// What is a notebook for `espalier run` is one for a bundle, and nothing else is.
func TestNotebooksAsRunReadsThem(t *testing.T) {
	for _, text := range []string{
		plain, "", "[]", "null", "{}", `{"nbformat": 4}`, `{"nbformat": 4, "cells": []}`, `{"nbformat": 4, "cells": null}`, `{"nbformat": 4, "cells": [null]}`, `{"nbformat": 4.5, "cells": []}`,
		`{"nbformat": 4, "cells": [{"cell_type": "code", "outputs": [1]}]}`, `{"nbformat": 4, "cells": [{"cell_type": "Code"}]}`, `{"NBFORMAT": 4, "cells": []}`, `{"nbformat": 4, "cells": [{"cell_type": "raw"}]}`,
	} {
		path := filepath.Join(t.TempDir(), "nb.ipynb")
		write(t, path, text)
		_, want := nbrun.Inspect(setup.Paths{}, path)
		_, got := scripts(path, []byte(text))
		var format *nbrun.FormatError
		if (want == nil) != (got == nil) || got != nil && !errors.As(got, &format) {
			t.Errorf("%s: run says %v, a bundle says %v", text, want, got)
		}
	}
}

func TestUsage(t *testing.T) {
	project(t, plain)
	exported(t, "-o", "one.tar.gz")
	for _, args := range [][]string{{}, {"nb.ipynb", "other"}, {"nb.ipynb", "nb.ipynb"}, {"nb.ipynb", "--fast"}, {"nb.ipynb", "--limit", "much"}, {"nb.ipynb", "--limit", "0"}, {"nb.ipynb", "--limit", "9000GB"}} {
		var usage *nbrun.UsageError
		if err := Export(t.Context(), args, io.Discard); !errors.As(err, &usage) || !strings.Contains(err.Error(), "usage: export") {
			t.Errorf("export %q: want a usage error, got %v", args, err)
		}
	}
	for _, args := range [][]string{{}, {"a", "b"}, {"a", "--force"}, {"one.tar.gz", "-o", "."}} {
		var usage *nbrun.UsageError
		if err := Open(t.Context(), args, io.Discard); !errors.As(err, &usage) || !strings.Contains(err.Error(), "usage: open") {
			t.Errorf("open %q: want a usage error, got %v", args, err)
		}
	}
	write(t, "full/x", "")
	write(t, "empty.ipynb", "{}")
	write(t, "bare/state.bin", "")
	for want, err := range map[string]error{
		"not empty":     Open(t.Context(), []string{"one.tar.gz", "-o", "full"}, io.Discard),
		"is no file":    Open(t.Context(), []string{"state"}, io.Discard),
		"is not there":  Open(t.Context(), []string{"none.tar.gz"}, io.Discard),
		"no bundle;":    Export(t.Context(), []string{"nb.ipynb", "-o", "nb.ipynb"}, io.Discard),
		"and is no fil": Export(t.Context(), []string{"nb.ipynb", "-o", "full"}, io.Discard),
		"nbformat":      Export(t.Context(), []string{"empty.ipynb"}, io.Discard),
		"no such":       Export(t.Context(), []string{"nb.ipynb", "--run", "none"}, io.Discard),
		"no manifests":  Export(t.Context(), []string{"nb.ipynb", "--run", "bare"}, io.Discard),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

// A compressed archive of something else is not taken for a bundle of before, not even where it has the name that a bundle would get.
func TestOtherArchivesStay(t *testing.T) {
	project(t, plain)
	var data bytes.Buffer
	z := gzip.NewWriter(&data)
	if err := errors.Join(archive.Write(z, []archive.File{{Name: "images", Size: 2, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("ab")), nil }}}), z.Close()); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{data.String(), "\x1f\x8b\x08", ""} {
		write(t, "nb.tar.gz", content)
		var e *Error
		if err := Export(t.Context(), []string{"nb.ipynb"}, io.Discard); !errors.As(err, &e) || !strings.Contains(err.Error(), "is no bundle; give another name") {
			t.Errorf("over %q: %v", content, err)
		}
		if got, err := os.ReadFile("nb.tar.gz"); err != nil || string(got) != content {
			t.Errorf("%q became %q, %v", content, got, err)
		}
	}
}

// restless changes a file whenever it is asked, as a run that goes on does.
type restless struct {
	context.Context
	n int
}

func (r *restless) Err() error {
	r.n++
	return os.WriteFile("state/compare/table.csv", fmt.Appendf(nil, "%08d\n", r.n), 0o644)
}

func TestFileThatChangesMeanwhile(t *testing.T) {
	project(t, plain)
	err := Export(&restless{Context: t.Context()}, []string{"nb.ipynb", "-o", "one.tar.gz", "--run", "state/compare"}, io.Discard)
	var e *Error
	if !errors.As(err, &e) || !strings.HasSuffix(e.Path, "table.csv") || !strings.Contains(err.Error(), "export it again") {
		t.Errorf("want an error that says what to do here, got %v", err)
	}
	if _, err := os.Lstat("one.tar.gz"); err == nil {
		t.Error("a bundle was made")
	}
}

func TestInterrupted(t *testing.T) {
	project(t, plain)
	exported(t, "-o", "one.tar.gz")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Open(ctx, []string{"one.tar.gz"}, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	if err := Export(ctx, []string{"nb.ipynb"}, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("export: %v", err)
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 4 {
		t.Errorf("something is left: %v, %v", entries, err)
	}
}

// Links in a directory of runs are not followed out of it.
func TestLinksAreLeftOut(t *testing.T) {
	project(t, plain)
	write(t, "secret.json", "secret")
	if err := errors.Join(os.Symlink("../../secret.json", "state/compare/a.json"), os.Symlink("../..", "state/compare/up")); err != nil {
		t.Fatal(err)
	}
	if said := exported(t, "-o", "one.tar.gz"); !strings.Contains(said, "left out, 2") || !strings.Contains(said, "are links") {
		t.Errorf("the links are not mentioned:\n%s", said)
	}
	if err := Open(t.Context(), []string{"one.tar.gz"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	got := below(t, "one")
	delete(got, indexName)
	if diff := cmp.Diff(held(plain), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Lines that are made to be pasted into a shell execute nothing, whatever a name is.
func TestQuote(t *testing.T) {
	for name, want := range map[string]string{
		"a/b-1.ipynb": "a/b-1.ipynb", "a b": "'a b'", "$(rm -rf ~)": "'$(rm -rf ~)'", "it's": `'it'\''s'`, "-o": "./-o", "a;b": "'a;b'", "ä": "'ä'", "-a b": "'./-a b'",
	} {
		if got := quote(name); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}
