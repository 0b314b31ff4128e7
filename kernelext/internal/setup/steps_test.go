package setup

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeZip(t *testing.T, files ...[2]string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.Create(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.whl")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExtract(t *testing.T) {
	dir := t.TempDir()
	archive := writeZip(t, [2]string{"x/lib.so", "12345"}, [2]string{"x/other", "no"}, [2]string{"info/LICENSE", "yes"})
	if err := extract(archive, dir, map[string]int64{"lib.so": 5, "LICENSE": 10}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"LICENSE", "lib.so"}, names(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "lib.so")); err != nil || string(data) != "12345" {
		t.Errorf("lib.so = %q, %v", data, err)
	}
	// The digest of "12345".
	if err := verify(filepath.Join(dir, "lib.so"), "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"); err != nil {
		t.Error(err)
	}
	if err := verify(filepath.Join(dir, "lib.so"), pluginSHA256); err == nil || !strings.Contains(err.Error(), "does not match its digest") {
		t.Errorf("verify with another digest: %v", err)
	}
}

func TestExtractRefuses(t *testing.T) {
	good := writeZip(t, [2]string{"lib.so", strings.Repeat("12345", 1000)})
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	truncated := filepath.Join(t.TempDir(), "truncated.whl")
	if err := os.WriteFile(truncated, data[:len(data)-10], 0o644); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.whl")
	if err := os.WriteFile(damaged, bytes.Replace(data, data[40:44], []byte("!!!!"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ archive, want string }{
		"leads out":    {writeZip(t, [2]string{"../lib.so", "1"}), "leads out"},
		"absolute":     {writeZip(t, [2]string{"/lib.so", "1"}), "leads out"},
		"too large":    {writeZip(t, [2]string{"lib.so", strings.Repeat("0", 5001)}), "at most 5000"},
		"twice":        {writeZip(t, [2]string{"a/lib.so", "1"}, [2]string{"b/lib.so", "2"}), "exists"},
		"not there":    {writeZip(t, [2]string{"other", "1"}), "0 of the 1"},
		"truncated":    {truncated, "no whole archive"},
		"damaged":      {damaged, ""},
		"no such file": {filepath.Join(t.TempDir(), "none"), "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "in")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			err := extract(test.archive, dir, map[string]int64{"lib.so": 5000})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
			if diff := cmp.Diff([]string{"in"}, names(t, filepath.Dir(dir))); diff != "" {
				t.Errorf("next to the directory (-want +got):\n%s", diff)
			}
		})
	}
}

func testPaths() Paths {
	p := locate("/h")
	p.Project, p.Go = "/project", "/go/bin/go"
	return p
}

func TestKernelspec(t *testing.T) {
	tools := t.TempDir() // without a compiler
	t.Setenv("PATH", tools)
	got, err := testPaths().kernelspec()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "kernel.json")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
		t.Errorf("kernel.json (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(tools, "clang"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/h/shim", "/h/bin", "/go/bin", "/usr/local/bin", "/usr/bin", "/bin", tools}, testPaths().kernelPath()); diff != "" {
		t.Errorf("PATH with a compiler elsewhere (-want +got):\n%s", diff)
	}
}

// The project of a kernelspec is told from it, so that another checkout does not take the kernel without a word.
func TestKernelOf(t *testing.T) {
	p := locate(t.TempDir())
	p.Project, p.Go = "/project", "/go/bin/go"
	if got := p.kernelOf(); got != "" {
		t.Errorf("without a kernelspec it is of %q", got)
	}
	spec, err := p.kernelspec()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{string(spec): "/project", "{": "", "{}": ""} {
		if err := writeFile(filepath.Join(p.SpecDir(), "kernel.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := p.kernelOf(); got != want {
			t.Errorf("it is of %q, want %q", got, want)
		}
	}
}

func TestRegister(t *testing.T) {
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	gonb := filepath.Join(data, "jupyter", "kernels", "gonb", "kernel.json")
	if err := writeFile(gonb, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := testPaths()
	path, err := Register(p)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(data, "jupyter", "kernels", "espalier", "kernel.json"); path != want || !exists(want) {
		t.Errorf("registered in %s, want %s", path, want)
	}
	other := p
	other.Home = "/another"
	if err := unregister(other); err != nil || !exists(path) {
		t.Errorf("another installation's uninstall removed ours (%v)", err)
	}
	for range 2 { // the second time there is nothing to do
		if err := unregister(p); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"gonb"}, names(t, filepath.Join(data, "jupyter", "kernels"))); diff != "" {
		t.Errorf("kernels (-want +got):\n%s", diff)
	}
}

func TestLocate(t *testing.T) {
	t.Setenv("ESPALIER_HOME", t.TempDir())
	project := t.TempDir()
	if err := os.WriteFile(filepath.Join(project, "go.mod"), []byte("module "+Module+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(project, "a", "b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ESPALIER_PROJECT", below)
	p, err := Locate()
	if err != nil {
		t.Fatal(err)
	}
	if p.Project != project {
		t.Errorf("project = %s, want %s", p.Project, project)
	}
	for _, path := range []string{p.Home, p.Bin, p.Gonb, p.ShimDir, p.Python, p.PluginDir, p.Go} {
		if !filepath.IsAbs(path) {
			t.Errorf("%q is not absolute", path)
		}
	}
	t.Setenv("ESPALIER_PROJECT", t.TempDir())
	if _, err := Locate(); !errors.Is(err, ErrNoProject) {
		t.Errorf("outside of a project: error = %v, want ErrNoProject", err)
	}
	t.Setenv("ESPALIER_PROJECT", project)
	t.Setenv("ESPALIER_GO", "")
	t.Setenv("PATH", t.TempDir())
	if _, err := Locate(); !errors.Is(err, ErrNoGo) {
		t.Errorf("without Go: error = %v, want ErrNoGo", err)
	}
}

func TestEnv(t *testing.T) {
	t.Setenv("JUPYTER_PATH", "/theirs")
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("UNRELATED", "stays")
	got := map[string]string{}
	for _, e := range testPaths().Env() {
		name, value, _ := strings.Cut(e, "=")
		if _, twice := got[name]; twice {
			t.Errorf("%s is set twice", name)
		}
		got[name] = value
	}
	for name, want := range map[string]string{
		"UNRELATED": "stays", "GOFLAGS": "", "JUPYTER_PATH": "/h/jupyter", "PJRT_PLUGIN_LIBRARY_PATH": "/h/pjrt",
		"GOMLX_NO_AUTO_INSTALL": "1", "ESPALIER_HOME": "/h", "ESPALIER_PROJECT": "/project", "GOTOOLCHAIN": "local",
	} {
		if got[name] != want {
			t.Errorf("%s = %q, want %q", name, got[name], want)
		}
	}
}

// What can't be installed is missed by name, each with what mends it.
func TestRequirementsMissing(t *testing.T) {
	p := locate(t.TempDir())
	goCommand, err := realGo()
	if err != nil {
		t.Fatal(err)
	}
	p.Go = goCommand
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CC", "gcc")
	want := map[string]bool{"Go": true, "C compiler": false, "Python": false, "disk": true}
	got := map[string]bool{}
	for _, r := range p.Requirements(t.Context()) {
		got[r.Name] = r.Err == nil
		if r.Remedy == "" {
			t.Errorf("%s has no remedy", r.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("there (-want +got):\n%s", diff)
	}
	var e *Error
	if err := p.check(t.Context()); !errors.As(err, &e) || e.Step != "C compiler" {
		t.Errorf("check: %v, want an error about the C compiler", err)
	}
}

func TestRequirementsTooOld(t *testing.T) {
	dir := t.TempDir()
	p := locate(t.TempDir())
	p.Go = filepath.Join(dir, "go")
	for name, says := range map[string]string{"go": "go1.25.9", "python3": "3.9.18"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+says+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, r := range p.Requirements(t.Context()) {
		if (r.Name == "Go" || r.Name == "Python") && (r.Err == nil || !strings.Contains(r.Err.Error(), r.Found)) {
			t.Errorf("%s %s: error = %v, want one that says what was found", r.Name, r.Found, r.Err)
		}
	}
}

func TestToolVersion(t *testing.T) {
	if _, err := ToolVersion(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want ErrNotExist", err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if v, err := ToolVersion(script); err == nil {
		t.Errorf("a script has version %q", v)
	}
}

// Every pin names the version that the code expects, and what it depends on by digest.
func TestPins(t *testing.T) {
	for _, tool := range tools {
		mod, err := pins.ReadFile("pins/" + tool.name + "/go.mod.txt")
		if err != nil {
			t.Fatal(err)
		}
		sum, err := pins.ReadFile("pins/" + tool.name + "/go.sum.txt")
		if err != nil {
			t.Fatal(err)
		}
		module := tool.pkg
		for module != "." && !strings.Contains(string(mod), module+" "+tool.version) {
			module = filepath.Dir(module)
		}
		if module == "." || !strings.Contains(string(sum), module+" "+tool.version+" h1:") {
			t.Errorf("%s %s is not in its pin", tool.name, tool.version)
		}
	}
	for _, name := range []string{"lab", "jax", "onnxruntime", "plugin"} {
		lock, err := pins.ReadFile("pins/" + name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		for block := range strings.SplitSeq(strings.ReplaceAll(string(lock), "\\\n", " "), "\n") {
			if fields := strings.Fields(block); len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
				continue
			}
			if !strings.Contains(block, "==") || !strings.Contains(block, "--hash=sha256:") {
				t.Errorf("%s: not pinned by digest: %s", name, block)
			}
		}
	}
}

func TestWarmCells(t *testing.T) {
	want := []string{
		"%%writefile ${GONB_TMP_DIR}/warm.go\npackage main\n\nimport _ \"m/a\"\nimport _ \"m/b\"\n\nconst warm = \"ready\"\n",
		"%%\nprintln(warm)",
	}
	if diff := cmp.Diff(want, warmCells([]string{"m/a", "m/internal", "m/a/internal/x", "m/b"})); diff != "" {
		t.Errorf("cells (-want +got):\n%s", diff)
	}
}

func TestDigest(t *testing.T) {
	a := digest(map[string][]byte{"a": []byte("1"), "b": []byte("2")})
	for name, parts := range map[string]map[string][]byte{
		"another value":  {"a": []byte("1"), "b": []byte("3")},
		"another name":   {"a": []byte("1"), "c": []byte("2")},
		"another border": {"a": []byte("1b 1\n2")},
	} {
		if digest(parts) == a {
			t.Errorf("%s: the same digest", name)
		}
	}
}

// The kernel is built anew when what it is made of changes: all of that has to be looked at.
func TestKernelSourcesAreComplete(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", Module+"/kernelext/cmd/espalier").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		dir, ours := strings.CutPrefix(dep, Module+"/")
		if ours && !slices.ContainsFunc(kernelSources, func(s string) bool { return dir == s || strings.HasPrefix(dir, s+"/") }) {
			t.Errorf("the kernel is made of %s, which is not in kernelSources", dir)
		}
	}
}
