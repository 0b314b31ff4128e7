package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// leftOut is what is in directories of runs and not in the bundle.
type leftOut []struct{ reason, name string }

func (l *leftOut) add(reason, name string) {
	*l = append(*l, struct{ reason, name string }{reason, name})
}

// print says what was left out, a line for each reason, with the first few names.
func (l leftOut) print(out io.Writer) {
	var reasons []string
	names := map[string][]string{}
	for _, one := range l {
		if names[one.reason] == nil {
			reasons = append(reasons, one.reason)
		}
		names[one.reason] = append(names[one.reason], fmt.Sprintf("%q", one.name))
	}
	for _, reason := range reasons {
		some, more := names[reason], ""
		if len(some) > 3 {
			some, more = some[:3], " …"
		}
		fmt.Fprintf(out, "left out, %d: %s%s %s\n", len(names[reason]), strings.Join(some, ", "), more, reason)
	}
}

// stateCall is how a notebook names a directory for what survives its cells. A name that is put together is not seen.
var stateCall = regexp.MustCompile(`kernelext\.Dir\("([^"\\]+)"\)`)

// ownRuns returns the directories that a notebook names by kernelext.Dir and that are there. Names that lead out of the directory of states are none.
func ownRuns(notebook []byte) (dirs []string, err error) {
	var nb struct {
		Cells []struct{ Source any }
	}
	if err := json.Unmarshal(notebook, &nb); err != nil {
		return nil, err
	}
	state := os.Getenv("ESPALIER_STATE") // as kernelext.Dir does
	if state == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, nil // then there are none
		}
		state = filepath.Join(cache, "espalier", "state")
	}
	for _, cell := range nb.Cells {
		for _, call := range stateCall.FindAllStringSubmatch(joined(cell.Source), -1) {
			name := filepath.Clean(call[1])
			dir := filepath.Join(state, name)
			if !filepath.IsLocal(name) || name == "." || slices.Contains(dirs, dir) {
				continue
			}
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				dirs = append(dirs, dir)
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	// One below another comes with it.
	return slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
		return slices.ContainsFunc(dirs, func(other string) bool { return strings.HasPrefix(dir, other+string(filepath.Separator)) })
	}), nil
}

// run finds what a directory of runs has for a bundle. It leaves the directory by no link.
func run(ctx context.Context, dir, prefix string, limit int64, left *leftOut) (found []packed, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		base := path.Base(name)
		switch {
		case name == ".":
			return nil
		case d.IsDir() && strings.HasPrefix(base, "step-"):
			left.add("are checkpoints, which training makes again", prefix+name)
			return fs.SkipDir
		case d.IsDir() && strings.HasPrefix(base, "."):
			left.add("have hidden names, as what is being written", prefix+name)
			return fs.SkipDir
		case d.IsDir():
			return nil
		case strings.HasPrefix(base, "."):
			left.add("have hidden names, as what is being written", prefix+name)
			return nil
		case !d.Type().IsRegular():
			left.add("are links or devices", prefix+name)
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if base == "lock" && info.Size() == 0 {
			return nil // no content, so nothing is lost
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		role, err := kindOf(prefix+name, f, info.Size())
		if closed := f.Close(); closed != nil {
			return closed
		}
		var other *KindError
		switch {
		case errors.As(err, &other):
			left.add("of a kind that a bundle does not hold: "+other.Error(), prefix+name)
		case err != nil:
			return err
		case role == Notebook:
			left.add("are notebooks, of which a bundle has one", prefix+name)
		case info.Size() > limit:
			left.add(fmt.Sprintf("have more than %s (--limit)", bytesText(limit)), prefix+name)
		default:
			found = append(found, packed{File{Name: prefix + name, Role: role}, dir, name})
		}
		return nil
	})
	return found, err
}
