// Package home says where Espalier keeps what its set-up installs. It makes nothing and imports the standard library only, so that
// the command, the data sets and the backend agree on one place.
package home

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Env is the environment variable that names the directory; it takes precedence over the XDG data directory.
const Env = "ESPALIER_HOME"

// ErrNoHome says that no directory could be determined.
var ErrNoHome = errors.New("no directory for Espalier: set ESPALIER_HOME to one that you can write")

// Dir returns the absolute path of the directory under which all that set-up makes lies: $ESPALIER_HOME, else $XDG_DATA_HOME/espalier,
// else ~/.local/share/espalier. The error is ErrNoHome where none of them is known.
func Dir() (string, error) { return dir(os.Getenv) }

// PluginDir returns the directory that holds the XLA plugin (pjrt_c_api_cpu_plugin.so).
func PluginDir() (string, error) { return sub("pjrt") }

// CacheDir returns the directory for downloads and decoded data sets; its content can be made again.
func CacheDir() (string, error) { return sub("cache") }

func sub(name string) (string, error) {
	d, err := Dir()
	if err != nil {
		return "", err
	}
	return filepath.Join(d, name), nil
}

func dir(getenv func(string) string) (string, error) {
	d := getenv(Env)
	if d == "" {
		data := getenv("XDG_DATA_HOME")
		// The XDG specification says that a relative path is to be ignored.
		if data == "" || !filepath.IsAbs(data) {
			user := getenv("HOME")
			if user == "" {
				return "", ErrNoHome
			}
			data = filepath.Join(user, ".local", "share")
		}
		d = filepath.Join(data, "espalier")
	}
	abs, err := filepath.Abs(d)
	if err != nil {
		return "", fmt.Errorf("%w (%v)", ErrNoHome, err)
	}
	return abs, nil
}
