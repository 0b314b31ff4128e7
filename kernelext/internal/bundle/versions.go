package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// versions are what a bundle is made with: of the modules those that the go.mod above a directory requires. found tells whether there is one.
func versions(dir string) (v map[string]string, found bool, err error) {
	v = map[string]string{"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			for module, version := range required(string(text)) {
				v[module] = version
			}
			return v, true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return v, false, err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return v, false, nil
		}
		dir = parent
	}
}

// required reads the require directives of a go.mod (https://go.dev/ref/mod#go-mod-file-require). Replacements are not followed.
func required(text string) map[string]string {
	modules := map[string]string{}
	block := false
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "//")
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "require" && words[1] == "(":
			block = true
		case len(words) == 1 && words[0] == ")":
			block = false
		case len(words) == 3 && words[0] == "require":
			modules[words[1]] = words[2]
		case block && len(words) == 2:
			modules[words[0]] = words[1]
		}
	}
	return modules
}
