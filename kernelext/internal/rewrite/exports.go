package rewrite

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// exports says where the compiler put what it knows of packages, which is what type-checking needs of them. Asking the Go command takes a tenth of a
// second and more, so its answer is kept as long as nothing that it depends on changes.
type exports struct {
	Files map[string]string    // by import path
	Local map[string]time.Time // directories of packages that can be edited: when one of their files was last changed
}

// ImportError says that the Go command can't find or compile what a cell imports; it has said what is wrong.
type ImportError struct{ Output string }

func (e *ImportError) Error() string { return strings.TrimSpace(e.Output) }

// findExports returns the exports of packages and of all that they import.
func (c Config) findExports(paths []string) (exports, error) {
	slices.Sort(paths)
	paths = slices.Compact(paths)
	file := filepath.Join(c.Cache, c.exportsKey(paths)+".json")
	var e exports
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &e) == nil && e.fresh() {
		return e, nil
	}
	e = exports{Files: map[string]string{}, Local: map[string]time.Time{}}
	args := append([]string{"list", "-export", "-deps", "-f",
		"{{.ImportPath}}\t{{.Export}}\t{{if not .Standard}}{{with .Module}}{{if or .Main .Replace}}{{$.Dir}}{{end}}{{end}}{{end}}"}, c.Flags...)
	cmd := exec.Command(c.Go, append(append(args, "--"), paths...)...)
	cmd.Dir = c.Dir
	var output, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &problems
	if err := cmd.Run(); err != nil {
		return e, &ImportError{problems.String()}
	}
	for line := range strings.Lines(output.String()) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 || fields[1] == "" {
			continue // package unsafe has no exports
		}
		e.Files[fields[0]] = fields[1]
		if fields[2] != "" {
			e.Local[fields[2]] = changed(fields[2])
		}
	}
	data, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	// Where it can't be written, the next cell asks again: that is slower, and no less right.
	if os.MkdirAll(c.Cache, 0o700) == nil && manifest.Replace(file, data) == nil {
		c.tidy()
	}
	return e, nil
}

// maxExports bounds the answers that are kept: there is one for each set of imports.
const maxExports = 200

// tidy removes the oldest answers.
func (c Config) tidy() {
	entries, _ := os.ReadDir(c.Cache) // nothing to remove where it can't be read
	if len(entries) <= maxExports {
		return
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return modified(a).Compare(modified(b)) })
	for _, e := range entries[:len(entries)-maxExports/2] {
		_ = os.Remove(filepath.Join(c.Cache, e.Name())) // another kernel may have done so
	}
}

func modified(e fs.DirEntry) time.Time {
	info, err := e.Info()
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// exportsKey is the digest of what the Go command's answer depends on, less the files of local packages.
func (c Config) exportsKey(paths []string) string {
	h := sha256.New()
	fmt.Fprintln(h, c.Go, c.Flags, os.Getenv("GOFLAGS"), os.Getenv("CGO_ENABLED"))
	if info, err := os.Stat(c.Go); err == nil {
		fmt.Fprintln(h, info.ModTime().UnixNano())
	}
	for _, p := range paths {
		fmt.Fprintln(h, p)
	}
	for _, name := range []string{"go.mod", "go.work"} {
		text, err := os.ReadFile(filepath.Join(c.Dir, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "module ") || line == c.Dir {
				continue // the kernel's own name
			}
			fmt.Fprintln(h, line)
			// The modules of the workspace say which versions are used.
			if dir := strings.TrimSpace(strings.TrimPrefix(line, "use ")); filepath.IsAbs(dir) {
				if info, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
					fmt.Fprintln(h, info.ModTime().UnixNano(), info.Size())
				}
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (e exports) fresh() bool {
	for dir, then := range e.Local {
		if !changed(dir).Equal(then) {
			return false
		}
	}
	for _, file := range e.Files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return false // the Go command tidied its cache
		}
	}
	return true
}

// changed returns when a directory's Go files, or the directory, were last changed.
func changed(dir string) time.Time {
	var last time.Time
	if info, err := os.Stat(dir); err == nil {
		last = info.ModTime()
	}
	entries, _ := os.ReadDir(dir) // a directory that is gone was changed: its time is zero
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		if info, err := e.Info(); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}
