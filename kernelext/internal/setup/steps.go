package setup

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

//go:embed pins
var pins embed.FS

// tool is a Go program that is built from a pinned module.
type tool struct {
	name, pkg, version string
}

// tools are the programs that the kernel and the tests use. Their modules, with the digests of all that they depend on, are in pins.
var tools = []tool{
	{"gonb", "github.com/janpfeifer/gonb", "v0.11.4"},
	{"goimports", "golang.org/x/tools/cmd/goimports", "v0.44.0"},
	{"gopls", "golang.org/x/tools/gopls", "v0.21.1"},
	{"staticcheck", "honnef.co/go/tools/cmd/staticcheck", "v0.8.2"},
}

// compilers are the C compilers that Go uses where it was not told of another.
var compilers = []string{"gcc", "clang", "cc"}

const (
	pluginFile   = "pjrt_c_api_cpu_plugin.so"
	pluginSHA256 = "ad1309ac822b1b24d51b7f9947c7c9fa9ef5d67f390584cbc3d1fa2428fed9c2"
	pluginSize   = 201_600_336
	diskNeeded   = 3 << 30
)

// steps lists the set-up in order.
func (p Paths) steps(progress io.Writer) []step {
	steps := []step{{
		name: "check what has to be there", computes: true, from: func() (string, error) { return p.requirements() },
		there: func() bool { return true }, do: p.check,
	}}
	for _, t := range tools {
		steps = append(steps, step{
			name: "build " + t.name + " " + t.version, made: []string{"bin/" + t.name},
			from: func() (string, error) { return p.pinDigest(t) },
			there: func() bool {
				version, err := ToolVersion(filepath.Join(p.Bin, t.name))
				return err == nil && version == t.version
			},
			do: func(ctx context.Context) error { return p.build(ctx, t) },
		})
	}
	return append(steps,
		step{
			name: "install JupyterLab", made: []string{"venv"}, computes: true, // whose Python fetches the plugin
			from:  func() (string, error) { return p.venvDigest("lab") },
			there: func() bool { return exists(p.Jupyter) && imports(p.Python, "jupyterlab") },
			do:    func(ctx context.Context) error { return p.venv(ctx, filepath.Join(p.Home, "venv"), "lab") },
		},
		step{
			name: "install the XLA plugin for CPU", made: []string{"pjrt"}, computes: true,
			from: func() (string, error) { return pluginSHA256 + runtime.GOOS + runtime.GOARCH, nil },
			there: func() bool {
				info, err := os.Stat(filepath.Join(p.PluginDir, pluginFile))
				return err == nil && (info.Size() == pluginSize || !wheelFits())
			},
			do: p.plugin,
		},
		step{
			// What the kernel makes while it runs, the notebooks' variables, goes with it.
			name: "build the kernel's Go command", made: []string{"shim", "state"},
			from: func() (string, error) {
				return p.sourceDigest("kernelext/internal/shim", "kernelext/internal/rewrite", "kernelext/internal/keep", "kernelext/internal/keep/manifest",
					"kernelext/survive", "pkg/backend/home")
			},
			there: func() bool { return exists(filepath.Join(p.ShimDir, "go")) },
			do: func(ctx context.Context) error {
				return p.buildOwn(ctx, "./kernelext/internal/shim", filepath.Join(p.ShimDir, "go"))
			},
		},
		step{
			name: "build the kernel", made: []string{"bin/espalier", "history.jsonl", "history.jsonl.lock"},
			from:  func() (string, error) { return p.sourceDigest(kernelSources...) },
			there: func() bool { return exists(p.Espalier) },
			do:    func(ctx context.Context) error { return p.buildOwn(ctx, "./kernelext/cmd/espalier", p.Espalier) },
		},
		step{
			name: "write the kernel", made: []string{"jupyter", "jupyter-config", "jupyter-runtime", "ipython"},
			from: func() (string, error) {
				spec, err := p.kernelspec()
				return digest(map[string][]byte{"kernel.json": spec}), err
			},
			there: func() bool { return exists(filepath.Join(p.SpecDir(), "kernel.json")) },
			do: func(context.Context) error {
				spec, err := p.kernelspec()
				if err != nil {
					return err
				}
				if before := p.kernelOf(); before != "" && before != p.Project {
					fmt.Fprintf(progress, "the kernel \"Go (Espalier)\" was of the project in %s, and is of the one in %s from now on: give each an ESPALIER_HOME of its own to use both\n", before, p.Project)
				}
				return writeFile(filepath.Join(p.SpecDir(), "kernel.json"), spec, 0o644)
			},
		},
		step{
			name: "compile what cells import", from: p.warmDigest,
			there: func() bool { return true },
			do:    p.warm,
		},
	)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// requirements is the digest of what check looks at: it is looked at again when one of them changes.
func (p Paths) requirements() (string, error) {
	parts := map[string][]byte{}
	for _, name := range append([]string{"python3"}, compilers...) {
		path, err := exec.LookPath(name)
		if err == nil {
			parts[name] = []byte(path)
		}
	}
	info, err := os.Stat(p.Go)
	if err != nil {
		return "", ErrNoGo
	}
	parts["go"] = []byte(p.Go + info.ModTime().String())
	return digest(parts), nil
}

// check looks for what set-up can't install.
func (p Paths) check(ctx context.Context) error {
	for _, r := range p.Requirements(ctx) {
		if r.Err != nil {
			return &Error{r.Name, r.Err, r.Remedy}
		}
	}
	return nil
}

// Requirement is something that has to be there before set-up.
type Requirement struct {
	Name, Found string
	Err         error
	Remedy      string
}

var versionNumber = regexp.MustCompile(`(\d+)\.(\d+)`)

// Requirements looks for what set-up can't install.
func (p Paths) Requirements(ctx context.Context) []Requirement {
	atLeast := func(text string, major, minor int) bool {
		m := versionNumber.FindStringSubmatch(text)
		var a, b int
		if m == nil {
			return false
		}
		fmt.Sscan(m[1], &a)
		fmt.Sscan(m[2], &b)
		return a > major || a == major && b >= minor
	}
	goVersion := Requirement{Name: "Go", Remedy: "install Go 1.26.5 or newer"}
	out, err := run(ctx, "", append(os.Environ(), "GOTOOLCHAIN=local"), p.Go, "env", "GOVERSION")
	goVersion.Found, goVersion.Err = strings.TrimSpace(out), err
	if err == nil && !atLeast(out, 1, 26) {
		goVersion.Err = fmt.Errorf("found %s", goVersion.Found)
	}

	compiler := Requirement{Name: "C compiler", Remedy: "install gcc or clang (Debian, Ubuntu: apt-get install gcc libc6-dev)"}
	compiler.Found, compiler.Err = p.compileC(ctx)

	python := Requirement{Name: "Python", Remedy: "install Python 3.10 or newer with its venv module (Debian, Ubuntu: apt-get install python3-venv)"}
	if path, err := exec.LookPath("python3"); err != nil {
		python.Err = errors.New("no python3 in the PATH")
	} else {
		out, err := run(ctx, "", os.Environ(), path, "-c", "import sys, venv, ensurepip; print('%d.%d.%d' % sys.version_info[:3])")
		python.Found, python.Err = strings.TrimSpace(out), err
		if err == nil && !atLeast(out, 3, 10) {
			python.Err = fmt.Errorf("found %s", python.Found)
		}
	}

	disk := Requirement{Name: "disk", Remedy: "free some disk space, or choose another directory with ESPALIER_HOME"}
	var s syscall.Statfs_t
	if err := syscall.Statfs(existing(p.Home), &s); err != nil {
		disk.Err = err
	} else {
		free := int64(s.Bavail) * s.Bsize
		disk.Found = fmt.Sprintf("%d GB free", free>>30)
		if free < diskNeeded && !exists(p.Python) {
			disk.Err = fmt.Errorf("%d MB free below %s, set-up needs %d GB", free>>20, p.Home, diskNeeded>>30)
		}
	}
	return []Requirement{goVersion, compiler, python, disk}
}

// existing returns the nearest directory above path that is there.
func existing(path string) string {
	for !exists(path) && filepath.Dir(path) != path {
		path = filepath.Dir(path)
	}
	return path
}

// compileC compiles an empty C program with the compiler that cgo would use.
func (p Paths) compileC(ctx context.Context) (found string, err error) {
	out, err := run(ctx, "", os.Environ(), p.Go, "env", "CC")
	if err != nil {
		return "", err
	}
	cc := strings.Fields(out)
	if len(cc) == 0 {
		return "", errors.New("none configured")
	}
	if _, err := exec.LookPath(cc[0]); err != nil {
		return "", fmt.Errorf("no %s in the PATH", cc[0])
	}
	dir, err := os.MkdirTemp("", "espalier-cc-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, "main.c")
	if err := os.WriteFile(source, []byte("#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n"), 0o600); err != nil {
		return "", err
	}
	if _, err := run(ctx, dir, os.Environ(), cc[0], append(cc[1:], "-o", filepath.Join(dir, "main"), source)...); err != nil {
		return "", err
	}
	return cc[0], nil
}

func (p Paths) pinDigest(t tool) (string, error) {
	mod, err := pins.ReadFile("pins/" + t.name + "/go.mod.txt")
	if err != nil {
		return "", err
	}
	return digest(map[string][]byte{"mod": mod, "version": []byte(t.version)}), nil
}

// build builds a tool from its pinned module.
func (p Paths) build(ctx context.Context, t tool) error {
	dir, done, err := p.scratch()
	if err != nil {
		return err
	}
	defer done()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := pins.ReadFile("pins/" + t.name + "/" + name + ".txt")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	source := fmt.Sprintf("//go:build tools\n\npackage tools\n\nimport _ %q\n", t.pkg)
	if err := os.WriteFile(filepath.Join(dir, "tools.go"), []byte(source), 0o644); err != nil {
		return err
	}
	made := filepath.Join(dir, t.name)
	env := append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "GOTOOLCHAIN=local")
	if _, err := run(ctx, dir, env, p.Go, "build", "-trimpath", "-o", made, t.pkg); err != nil {
		return err
	}
	return install(made, filepath.Join(p.Bin, t.name))
}

// install moves a file to where it belongs, once all of it is on the disk.
func install(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// ToolVersion returns the version that a tool was built from: what gonb says of its own is wrong.
func ToolVersion(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", err
	}
	// The module with the longest path that holds the package: gopls is a module within the module of the tools.
	version, longest := "", 0
	for _, dep := range append(info.Deps, &info.Main) {
		if (dep.Path == info.Path || strings.HasPrefix(info.Path, dep.Path+"/")) && len(dep.Path) > longest {
			version, longest = dep.Version, len(dep.Path)
		}
	}
	if version != "" {
		return version, nil
	}
	return "", fmt.Errorf("%s does not say its version", path)
}

// scratch makes a directory in Home for what is not whole yet, so that finishing it is a rename.
func (p Paths) scratch() (dir string, done func(), err error) {
	if err := os.MkdirAll(p.Home, 0o755); err != nil {
		return "", nil, err
	}
	dir, err = os.MkdirTemp(p.Home, scratchPrefix)
	return dir, func() { _ = os.RemoveAll(dir) }, err // what is left is scratch
}

func (p Paths) venvDigest(name string) (string, error) {
	lock, err := pins.ReadFile("pins/" + name + ".txt")
	if err != nil {
		return "", err
	}
	return digest(map[string][]byte{"lock": lock, "home": []byte(p.Home)}), nil
}

// imports says whether a Python environment finds a package. It does not once the system's Python, which it stands on, was upgraded.
func imports(python, pkg string) bool {
	return exec.Command(python, "-I", "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)", pkg).Run() == nil
}

// venv makes a Python environment with exactly the packages of a lock. It is made in place, since environments can't be moved; the
// interpreter, by which others recognise it, is what is there last.
func (p Paths) venv(ctx context.Context, dir, name string) error {
	lock, err := pins.ReadFile("pins/" + name + ".txt")
	if err != nil {
		return err
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if _, err := run(ctx, p.Home, os.Environ(), python, "-m", "venv", dir); err != nil {
		return err
	}
	requirements := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(requirements, lock, 0o644); err != nil {
		return err
	}
	_, err = run(ctx, p.Home, os.Environ(), filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--no-input",
		"--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", requirements)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// EnsurePeer sets up a Python environment for something that is only measured against or tried with, and returns its interpreter. name is "jax", "onnxruntime", or
// "interop" for the programs that run notebooks.
func EnsurePeer(ctx context.Context, progress io.Writer, name string) (python string, err error) {
	p, err := Locate()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(p.Home, "peers", name)
	python = filepath.Join(dir, "bin", "python")
	return python, ensure(ctx, progress, p.Home, []step{{
		name: "install what is only measured against or tried with: " + name, made: []string{"peers"},
		from:  func() (string, error) { return p.venvDigest(name) },
		there: func() bool { return imports(python, map[string]string{"jax": "jax", "interop": "papermill"}[name]) },
		do: func(ctx context.Context) error {
			if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
				return err
			}
			return p.venv(ctx, dir, name)
		},
	}})
}

func wheelFits() bool { return runtime.GOOS == "linux" && runtime.GOARCH == "amd64" }

// plugin installs XLA for CPU: on Linux on amd64 from a wheel that is pinned by digest, so that everybody computes with the same bits; elsewhere by
// go-xla's own installer.
func (p Paths) plugin(ctx context.Context) error {
	if !wheelFits() {
		_, err := run(ctx, p.Project, os.Environ(), p.Go, "run", "./kernelext/internal/setup/plugininstall", p.PluginDir)
		return err
	}
	dir, done, err := p.scratch()
	if err != nil {
		return err
	}
	defer done()
	lock, err := pins.ReadFile("pins/plugin.txt")
	if err != nil {
		return err
	}
	requirements := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(requirements, lock, 0o644); err != nil {
		return err
	}
	if _, err := run(ctx, dir, os.Environ(), p.Python, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps",
		"--only-binary=:all:", "--require-hashes", "-d", dir, "-r", requirements); err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("expected one wheel, found %d", len(wheels))
	}
	fresh := filepath.Join(dir, "pjrt")
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	if err := extract(wheels[0], fresh, map[string]int64{pluginFile: pluginSize, "LICENSE": 1 << 20, "THIRD_PARTY_NOTICES": 4 << 20}); err != nil {
		return err
	}
	if err := verify(filepath.Join(fresh, pluginFile), pluginSHA256); err != nil {
		return err
	}
	if err := os.RemoveAll(p.PluginDir); err != nil {
		return err
	}
	return os.Rename(fresh, p.PluginDir)
}

// extract takes the files of the given base names out of a zip archive, all of which must be there once, none larger than given. The
// directories in the archive decide nothing; one that leads out of it is refused.
func extract(archive, dir string, want map[string]int64) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("%s is no whole archive: %w", filepath.Base(archive), err)
	}
	defer z.Close()
	found := 0
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%s holds a file that leads out of it: %q", filepath.Base(archive), f.Name)
		}
		name := f.Name[strings.LastIndexByte(f.Name, '/')+1:]
		limit, wanted := want[name]
		if !wanted || !f.Mode().IsRegular() {
			continue
		}
		if f.UncompressedSize64 > uint64(limit) {
			return fmt.Errorf("%s in %s has %d bytes, at most %d were expected", name, filepath.Base(archive), f.UncompressedSize64, limit)
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		out, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return errors.Join(err, r.Close())
		}
		n, err := io.Copy(out, io.LimitReader(r, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("%s in %s is larger than it says", name, filepath.Base(archive))
		}
		if err == nil {
			err = out.Sync()
		}
		if err := errors.Join(err, r.Close(), out.Close()); err != nil {
			return err
		}
		found++
	}
	if found != len(want) {
		return fmt.Errorf("%s holds %d of the %d files expected", filepath.Base(archive), found, len(want))
	}
	return nil
}

// verify compares a file's SHA-256.
func verify(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s does not match its digest: expected %s, got %s", filepath.Base(path), want, got)
	}
	return nil
}

// VerifyPlugin checks the installed plugin against its digest.
func (p Paths) VerifyPlugin() error {
	if !wheelFits() {
		return nil
	}
	return verify(filepath.Join(p.PluginDir, pluginFile), pluginSHA256)
}

// kernelSources are the directories whose packages the command is made of. They are looked at whole: a build more is cheap.
var kernelSources = []string{"kernelext", "pkg/store", "pkg/report", "pkg/backend/home", "pkg/internal"}

// sourceDigest is the digest of the sources below directories, less their tests.
func (p Paths) sourceDigest(dirs ...string) (string, error) {
	parts := map[string][]byte{}
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(p.Project, dir), func(path string, f fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if f.IsDir() && f.Name() == "testdata" {
				return filepath.SkipDir
			}
			if !f.Type().IsRegular() || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			relative, err := filepath.Rel(p.Project, path)
			if err == nil {
				parts[relative], err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("no sources in %s: %w", strings.Join(dirs, ", "), fs.ErrNotExist)
	}
	return digest(parts), nil
}

// buildOwn builds a program of the project.
func (p Paths) buildOwn(ctx context.Context, program, path string) error {
	dir, done, err := p.scratch()
	if err != nil {
		return err
	}
	defer done()
	made := filepath.Join(dir, filepath.Base(path))
	env := append(os.Environ(), "GOTOOLCHAIN=local", "CGO_ENABLED=0")
	if _, err := run(ctx, p.Project, env, p.Go, "build", "-trimpath", "-ldflags=-s -w", "-o", made, program); err != nil {
		return err
	}
	return install(made, path)
}

// warmDigest changes when other packages have to be compiled: with the toolchain and the pinned modules, not with each edit of the project.
func (p Paths) warmDigest() (string, error) {
	parts := map[string][]byte{}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(p.Project, name))
		if err != nil {
			return "", err
		}
		parts[name] = data
	}
	info, err := os.Stat(p.Go)
	if err != nil {
		return "", err
	}
	parts["go"] = []byte(p.Go + info.ModTime().String())
	parts["project"] = []byte(p.Project)
	parts["cells"] = []byte(warmFile + warmMain)
	return digest(parts), nil
}

// warm compiles what cells import by running cells in the kernel: only that has exactly the flags that cells are built with.
func (p Paths) warm(ctx context.Context) error {
	// All of the project's modules, those of its tests too, so that nothing is missing later without network.
	if _, err := run(ctx, p.Project, append(os.Environ(), "GOTOOLCHAIN=local"), p.Go, "mod", "download"); err != nil {
		return err
	}
	out, err := run(ctx, p.Project, append(os.Environ(), "GOTOOLCHAIN=local"), p.Go, "list", "-f", `{{if ne .Name "main"}}{{.ImportPath}}{{end}}`, "./kernelext", "./kernelext/figure", "./kernelext/live", "./pkg/...", "./datasets/...")
	if err != nil {
		return err
	}
	results, err := p.Cells(ctx, KernelName, warmCells(strings.Fields(out)))
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Status != "ok" {
			return fmt.Errorf("a first cell failed: %s", tail(r.Output, 6))
		}
	}
	return nil
}

const (
	warmFile = "%%writefile ${GONB_TMP_DIR}/warm.go\npackage main\n\n"
	// It does not compile without that file.
	warmMain = "%%\nprintln(warm)"
)

// warmCells returns cells that import the packages, less the internal ones. The imports stand in a file of their own: GoNB keeps the
// declarations of cells by name, so that of several blank imports only the last would be left.
func warmCells(packages []string) []string {
	var file strings.Builder
	file.WriteString(warmFile)
	for _, pkg := range packages {
		if !slices.Contains(strings.Split(pkg, "/"), "internal") {
			fmt.Fprintf(&file, "import _ %q\n", pkg)
		}
	}
	file.WriteString("\nconst warm = \"ready\"\n")
	return []string{file.String(), warmMain}
}

// WantVersion returns the version of a tool that the project pins.
func WantVersion(name string) string {
	for _, t := range tools {
		if t.name == name {
			return t.version
		}
	}
	return ""
}
