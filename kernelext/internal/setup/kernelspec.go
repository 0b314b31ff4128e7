package setup

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// SpecDir is the directory of our kernelspec.
func (p Paths) SpecDir() string { return filepath.Join(p.JupyterData, "kernels", KernelName) }

// kernelspec returns kernel.json. All paths in it are absolute, since front ends start kernels with a PATH of their own.
func (p Paths) kernelspec() ([]byte, error) {
	env := map[string]string{
		"PATH":                     strings.Join(p.kernelPath(), string(os.PathListSeparator)),
		"ESPALIER_GO":              p.Go,
		"ESPALIER_HOME":            p.Home,
		"ESPALIER_PROJECT":         p.Project,
		"PJRT_PLUGIN_LIBRARY_PATH": p.PluginDir,
		"GOMLX_NO_AUTO_INSTALL":    "1",
		"TF_CPP_MIN_LOG_LEVEL":     "3",
		"GOTOOLCHAIN":              "local",
		"GOFLAGS":                  "",
	}
	return json.MarshalIndent(map[string]any{
		"argv":           []string{p.Espalier, "kernel", "{connection_file}"},
		"display_name":   "Go (Espalier)",
		"language":       "go",
		"interrupt_mode": "message",
		"env":            env,
		"metadata":       map[string]any{"espalier": map[string]string{"project": p.Project}},
	}, "", "  ")
}

// kernelOf is the project that the kernelspec which is there belongs to; "": there is none that says so.
func (p Paths) kernelOf() string {
	data, err := os.ReadFile(filepath.Join(p.SpecDir(), "kernel.json"))
	if err != nil {
		return ""
	}
	var spec struct {
		Env map[string]string `json:"env"`
	}
	if json.Unmarshal(data, &spec) != nil {
		return ""
	}
	return spec.Env["ESPALIER_PROJECT"]
}

// GonbCommand is how GoNB is started, less the connection file: cells import the project's packages, and they show their errors themselves, so that of GoNB's
// log only what ends it goes to the terminal of the front end.
func (p Paths) GonbCommand() []string {
	return []string{p.Gonb, "-go_work=" + p.Project, "-logtostderr=false", "-log_file=/dev/null", "-stderrthreshold=FATAL"}
}

// kernelPath is the kernel's PATH. It names where the compiler is, since that may be in the PATH of a shell only.
func (p Paths) kernelPath() []string {
	dirs := []string{p.ShimDir, p.Bin, filepath.Dir(p.Go), "/usr/local/bin", "/usr/bin", "/bin"}
	for _, name := range compilers {
		if path, err := exec.LookPath(name); err == nil && filepath.IsAbs(path) && !slices.Contains(dirs, filepath.Dir(path)) {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

// userSpec is where the user's own Jupyter looks for kernels.
func userSpec() (string, error) {
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		data = filepath.Join(user, ".local", "share")
	}
	return filepath.Join(data, "jupyter", "kernels", KernelName, "kernel.json"), nil
}

// Register also writes our kernelspec where the user's own Jupyter finds it.
func Register(p Paths) (string, error) {
	path, err := userSpec()
	if err != nil {
		return "", err
	}
	spec, err := p.kernelspec()
	if err != nil {
		return "", err
	}
	return path, wrap("register the kernel", writeFile(path, spec, 0o644))
}

// unregister removes what Register wrote, if it is ours.
func unregister(p Paths) error {
	path, err := userSpec()
	if err != nil {
		return nil // without a home directory nothing was registered
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return wrap("unregister the kernel", err)
	}
	var spec struct{ Env map[string]string }
	if json.Unmarshal(data, &spec) != nil || spec.Env["ESPALIER_HOME"] != p.Home {
		return nil // another installation's
	}
	if err := os.Remove(path); err != nil {
		return wrap("unregister the kernel", err)
	}
	// The directory is ours as well if nothing else is in it.
	if rest, err := os.ReadDir(filepath.Dir(path)); err == nil && len(rest) == 0 {
		return wrap("unregister the kernel", os.Remove(filepath.Dir(path)))
	}
	return nil
}
