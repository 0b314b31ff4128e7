// Package backend opens the best GoMLX backend that is present and says which one it took and why.
//
// The order: what GOMLX_BACKEND says; XLA on a GPU that is there; XLA on the CPU; GoMLX's pure Go backend, with a warning, since it is 10 to
// 30 times slower and lacks operations. Nothing is ever downloaded here: `espalier setup` installs the XLA plugin.
package backend

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend" // registers "go", the fallback
	"github.com/gomlx/go-xla/compute/xla"
	"github.com/gomlx/go-xla/pjrt"

	"github.com/espalier-ml/espalier/pkg/backend/home"
)

const (
	envBackend = "GOMLX_BACKEND"
	envPlugins = "PJRT_PLUGIN_LIBRARY_PATH"
	cpuPlugin  = "pjrt_c_api_cpu_plugin.so"
	cudaPlugin = "pjrt_c_api_cuda*_plugin.so"

	howToGetXLA = "run `go run ./kernelext/cmd/espalier setup` in the project to install it"
)

func init() {
	// go-xla would otherwise fetch plugins at the first use, unpinned and unasked.
	xla.EnableAutoInstall(false)
}

// Choice says which backend was opened.
type Choice struct {
	Name    string // as GOMLX_BACKEND would name it: "xla:cpu", "xla:cuda", "go"
	Device  string // what computes: "CPU", "GPU"
	Reason  string // why this one
	Warning string // one line, empty unless the choice costs the user something
}

// Error says that a backend could not be opened.
type Error struct {
	Backend string // what was asked for
	Remedy  string
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("backend %q could not be opened: %v; %s", e.Backend, e.Err, e.Remedy)
}

func (e *Error) Unwrap() error { return e.Err }

var open = sync.OnceValues(func() (opened, error) {
	b, choice, err := OpenWith(os.Getenv)
	if err == nil && choice.Warning != "" {
		fmt.Fprintln(os.Stderr, choice.Warning)
	}
	return opened{b, choice}, err
})

type opened struct {
	backend compute.Backend
	choice  Choice
}

// Open returns the backend of this process. It is opened at the first call and shared by all; a warning goes to stderr once.
func Open() (compute.Backend, error) {
	o, err := open()
	return o.backend, err
}

// Describe says which backend Open returns, and why. It opens it if need be.
func Describe() (Choice, error) {
	o, err := open()
	return o.choice, err
}

// OpenWith opens a backend by the environment that getenv shows; each call opens a new one.
func OpenWith(getenv func(string) string) (compute.Backend, Choice, error) {
	dirs := pluginDirs(getenv)
	if config := getenv(envBackend); config != "" {
		choice := Choice{Name: config, Device: device(config), Reason: envBackend + " says so"}
		if config == "xla" || config == "xla:cpu" {
			choice.Name = "xla:cpu"
			b, err := openCPU(dirs)
			if err != nil {
				return nil, Choice{}, &Error{Backend: config, Remedy: howToGetXLA, Err: err}
			}
			return b, choice, nil
		}
		b, err := openConfig(config)
		if err != nil {
			return nil, Choice{}, &Error{Backend: config, Err: err,
				Remedy: "unset " + envBackend + " to have the best one chosen, or set it to xla:cpu, xla:cuda or go"}
		}
		return b, choice, nil
	}

	var whyNotGPU string
	if hasGPU() {
		if plugin := find(dirs, cudaPlugin); plugin == "" {
			whyNotGPU = "a GPU is there, but no CUDA plugin for XLA"
		} else if b, err := recovered(func() (compute.Backend, error) { return xla.New(plugin) }); err != nil {
			whyNotGPU = fmt.Sprintf("a GPU is there, but its plugin does not open (%v)", err)
		} else {
			return b, Choice{Name: "xla:cuda", Device: "GPU", Reason: "a GPU and its XLA plugin are there"}, nil
		}
	}
	b, err := openCPU(dirs)
	if err == nil {
		reason := "the XLA plugin for CPU is there, and no GPU"
		if whyNotGPU != "" {
			reason = "the XLA plugin for CPU is there; " + whyNotGPU
		}
		return b, Choice{Name: "xla:cpu", Device: "CPU", Reason: reason}, nil
	}
	fallback, goErr := openConfig("go")
	if goErr != nil {
		return nil, Choice{}, &Error{Backend: "go", Remedy: howToGetXLA, Err: goErr}
	}
	return fallback, Choice{
		Name: "go", Device: "CPU", Reason: fmt.Sprintf("XLA could not be opened (%v)", err),
		Warning: fmt.Sprintf("espalier: no XLA (%v): using the pure Go backend, which is 10 to 30 times slower and lacks operations, "+
			"max-pool gradients among them; %s", err, howToGetXLA),
	}, nil
}

// openCPU opens XLA for one CPU device, synchronously: by default the plugin makes four devices, whose threads outnumber the cores of a
// small machine, and hands each call to another thread, which doubles the latency of a small network.
func openCPU(dirs []string) (compute.Backend, error) {
	plugin := find(dirs, cpuPlugin)
	if plugin == "" {
		return nil, fmt.Errorf("no %s in %s", cpuPlugin, strings.Join(dirs, ", "))
	}
	return recovered(func() (compute.Backend, error) {
		return xla.NewWithOptions(plugin, pjrt.NamedValuesMap{"cpu_device_count": int64(1), "asynchronous": false})
	})
}

func openConfig(config string) (compute.Backend, error) {
	return recovered(func() (compute.Backend, error) { return compute.NewWithConfig(config) })
}

// recovered turns the panics with which GoMLX answers an unknown backend, among others, into errors.
func recovered(f func() (compute.Backend, error)) (b compute.Backend, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("%v", r)
		}
	}()
	return f()
}

func device(config string) string {
	if strings.Contains(config, "cuda") {
		return "GPU"
	}
	return "CPU"
}

func hasGPU() bool {
	devices, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is valid, so there is no error
	return len(devices) > 0
}

// pluginDirs returns where plugins are looked for: what the environment says, else where set-up puts them and where go-xla's own
// installer does.
func pluginDirs(getenv func(string) string) []string {
	var dirs []string
	for _, d := range filepath.SplitList(getenv(envPlugins)) {
		if d != "" {
			dirs = append(dirs, d)
		}
	}
	if len(dirs) > 0 {
		return dirs
	}
	if d, err := home.PluginDir(); err == nil {
		dirs = append(dirs, d)
	}
	if user := getenv("HOME"); user != "" {
		dirs = append(dirs, filepath.Join(user, ".local", "lib", "go-xla"))
	}
	return append(dirs, "/usr/local/lib/go-xla")
}

// find returns the absolute path of the first file that matches the pattern, or "".
func find(dirs []string, pattern string) string {
	for _, d := range dirs {
		matches, _ := filepath.Glob(filepath.Join(d, pattern)) // the patterns are valid, so there is no error
		if len(matches) == 0 {
			continue
		}
		if abs, err := filepath.Abs(matches[len(matches)-1]); err == nil {
			return abs
		}
	}
	return ""
}
