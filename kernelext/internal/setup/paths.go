// Package setup installs what notebooks and tests need, pinned and checked by digest, into one directory, and says where it is.
package setup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/espalier-ml/espalier/pkg/backend/home"
)

// Module is the path of this project's module.
const Module = "github.com/espalier-ml/espalier"

// KernelName is the name of our kernelspec.
const KernelName = "espalier"

// Paths says where things are. All are absolute.
type Paths struct {
	Home        string // the directory of all that set-up makes
	Project     string // the checkout that notebooks use
	Go          string // the real Go command
	Bin         string // the tools
	Gonb        string
	Goimports   string
	Gopls       string
	Staticcheck string
	Espalier    string // this command, as the kernelspec starts it
	ShimDir     string // holds `go`, which the kernel finds first
	Python      string // of the private environment
	Jupyter     string
	PluginDir   string // holds the XLA plugin
	JupyterData string // holds kernels/espalier
}

// ErrNoProject says that no checkout of this project was found.
var ErrNoProject = errors.New("not in a checkout of " + Module + ": change to one, or set ESPALIER_PROJECT to it")

// ErrNoGo says that there is no Go command.
var ErrNoGo = errors.New("no Go command found: install Go 1.26.5 or newer and put it in the PATH")

// Locate returns where things are, or will be. It makes nothing.
func Locate() (Paths, error) {
	dir, err := home.Dir()
	if err != nil {
		return Paths{}, err
	}
	project, err := findProject()
	if err != nil {
		return Paths{}, err
	}
	goCommand, err := realGo()
	if err != nil {
		return Paths{}, err
	}
	p := locate(dir)
	p.Project, p.Go = project, goCommand
	return p, nil
}

func locate(dir string) Paths {
	bin := filepath.Join(dir, "bin")
	return Paths{
		Home: dir, Bin: bin,
		Gonb: filepath.Join(bin, "gonb"), Goimports: filepath.Join(bin, "goimports"), Gopls: filepath.Join(bin, "gopls"),
		Staticcheck: filepath.Join(bin, "staticcheck"),
		Espalier:    filepath.Join(bin, "espalier"),
		ShimDir:     filepath.Join(dir, "shim"),
		Python:      filepath.Join(dir, "venv", "bin", "python"), Jupyter: filepath.Join(dir, "venv", "bin", "jupyter"),
		PluginDir:   filepath.Join(dir, "pjrt"),
		JupyterData: filepath.Join(dir, "jupyter"),
	}
}

func findProject() (string, error) {
	var from []string
	if p := os.Getenv("ESPALIER_PROJECT"); p != "" {
		from = append(from, p)
	} else if d, err := os.Getwd(); err == nil {
		from = append(from, d)
	}
	for _, d := range from {
		d, err := filepath.Abs(d)
		if err != nil {
			return "", err
		}
		for {
			if text, err := os.ReadFile(filepath.Join(d, "go.mod")); err == nil && strings.HasPrefix(string(text), "module "+Module+"\n") {
				return d, nil
			}
			parent := filepath.Dir(d)
			if parent == d {
				break
			}
			d = parent
		}
	}
	return "", ErrNoProject
}

// realGo returns the path of the Go command, which is not our shim: a program that runs in a cell finds that first.
func realGo() (string, error) {
	if path := os.Getenv("ESPALIER_GO"); path != "" {
		return path, nil
	}
	path, err := exec.LookPath("go")
	if err != nil {
		return "", ErrNoGo
	}
	return filepath.Abs(path)
}

// Env returns the environment for tests, notebooks and front ends: the process's own, with the plugin, the project and a Jupyter of our own.
func (p Paths) Env() []string {
	set := p.variables()
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if _, own := set[name]; !own && name != "GOFLAGS" && !strings.HasPrefix(name, "JUPYTER") {
			env = append(env, e)
		}
	}
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	return env
}

func (p Paths) variables() map[string]string {
	return map[string]string{
		"PJRT_PLUGIN_LIBRARY_PATH": p.PluginDir,
		"GOMLX_NO_AUTO_INSTALL":    "1",
		"GOTOOLCHAIN":              "local",
		"ESPALIER_HOME":            p.Home,
		"ESPALIER_PROJECT":         p.Project,
		"JUPYTER_PATH":             p.JupyterData,
		"JUPYTER_DATA_DIR":         p.JupyterData,
		"JUPYTER_CONFIG_DIR":       filepath.Join(p.Home, "jupyter-config"),
		"JUPYTER_RUNTIME_DIR":      filepath.Join(p.Home, "jupyter-runtime"),
		"JUPYTER_PLATFORM_DIRS":    "1",
		"IPYTHONDIR":               filepath.Join(p.Home, "ipython"),
		"TF_CPP_MIN_LOG_LEVEL":     "3",
	}
}

// Error says what went wrong in a step, and what mends it.
type Error struct {
	Step   string
	Err    error
	Remedy string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v; %s", e.Step, e.Err, e.Remedy) }

func (e *Error) Unwrap() error { return e.Err }
