package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/pkg/store/archive"
)

const openUsage = "; usage: open FILE [-o DIR]"

// Open is `espalier open`: it unpacks a bundle into a new directory, or an empty one, after all of it has been verified out of sight, and says what
// is in it and how to run it again. It executes nothing.
//
// Errors: *nbrun.UsageError, *nbrun.FormatError, *Error, *archive.Error, and those of the file system. The directory is not there then; only an
// error in making its name last, after it was renamed, leaves it.
func Open(ctx context.Context, args []string, out io.Writer) error {
	file, dir, err := parseOpen(args)
	if err != nil {
		return err
	}
	x, warned, err := unpack(ctx, file, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is in %s\n", file, dir)
	summary(out, x)
	describe(out, x, dir, warned)
	return nil
}

func parseOpen(args []string) (file, dir string, err error) {
	flags := flag.NewFlagSet("open", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&dir, "o", "", "the directory")
	for rest := args; ; rest = flags.Args()[1:] {
		if err := flags.Parse(rest); err != nil {
			return "", "", &nbrun.UsageError{Problem: err.Error() + openUsage}
		}
		if flags.NArg() == 0 {
			break
		}
		if file != "" {
			return "", "", &nbrun.UsageError{Problem: fmt.Sprintf("%q is one file too many", flags.Arg(0)) + openUsage}
		}
		file = flags.Arg(0)
	}
	if file == "" {
		return "", "", &nbrun.UsageError{Problem: "no bundle given" + openUsage}
	}
	if dir == "" {
		dir = filepath.Base(file)
		for _, extension := range []string{".gz", ".tar", ".tgz"} {
			dir = strings.TrimSuffix(dir, extension)
		}
		if dir == filepath.Base(file) {
			dir += "-opened"
		}
	}
	if dir = filepath.Clean(dir); dir == "." { // it would be replaced
		return "", "", &nbrun.UsageError{Problem: "the directory must be a new one, not the one you are in" + openUsage}
	}
	return file, dir, nil
}

// unpack unpacks a bundle into a new directory, when it has been verified. warned are the cells whose outputs hold scripts.
func unpack(ctx context.Context, file, dir string) (x Index, warned []int, err error) {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return x, nil, &Error{file, "is not there", "give a bundle that `espalier export` made"}
	}
	if err != nil {
		return x, nil, err
	}
	if !info.Mode().IsRegular() {
		return x, nil, &Error{file, "is no file", "give a bundle that `espalier export` made"}
	}
	f, err := os.Open(file)
	if err != nil {
		return x, nil, err
	}
	defer f.Close()
	err = archive.ExtractNew(interruptible{ctx, f}, dir, limits, func(root *os.Root, names []string) (err error) {
		if x, err = readIndex(root, names); err == nil {
			warned, err = verify(ctx, root, x, names[1:])
		}
		return err
	})
	if err != nil {
		return Index{}, nil, fmt.Errorf("%s: %w", file, err)
	}
	return x, warned, nil
}

// interruptible is a reader that stops when a context does.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

func readIndex(root *os.Root, names []string) (Index, error) {
	if len(names) == 0 || names[0] != indexName {
		return Index{}, &Error{indexName, "is not the first entry", "give a bundle that `espalier export` made"}
	}
	info, err := root.Stat(indexName)
	if err != nil {
		return Index{}, err
	}
	if info.Size() > maxIndex {
		return Index{}, &Error{indexName, fmt.Sprintf("has %s, at most %s are possible", bytesText(info.Size()), bytesText(maxIndex)), getAgain}
	}
	text, err := root.ReadFile(indexName)
	if err != nil {
		return Index{}, err
	}
	return decode(text)
}

// verify compares what was unpacked with the index: the same names, and of each file size, digest, and role by its content.
func verify(ctx context.Context, root *os.Root, x Index, names []string) (warned []int, err error) {
	listed := map[string]bool{}
	for _, f := range x.Files {
		listed[f.Name] = true
	}
	for _, name := range names {
		if !listed[name] {
			return nil, &Error{name, "is in the bundle and not in its index", getAgain}
		}
	}
	if len(names) != len(x.Files) {
		missing := slices.IndexFunc(x.Files, func(f File) bool { return !slices.Contains(names, f.Name) })
		return nil, &Error{x.Files[missing].Name, "is in the index and not in the bundle", getAgain}
	}
	for _, f := range x.Files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := verifyFile(root, f); err != nil {
			return nil, err
		}
	}
	name := notebooks + x.Notebook
	if info, err := root.Stat(name); err != nil || info.Size() > maxNotebook {
		return nil, errors.Join(err, &Error{name, "is too large for a notebook", "clear its large outputs and export it again"})
	}
	data, err := root.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return scripts(name, data)
}

func verifyFile(root *os.Root, f File) error {
	content, err := root.Open(f.Name)
	if err != nil {
		return err
	}
	defer content.Close()
	h := sha256.New()
	n, err := io.Copy(h, content)
	if err != nil {
		return err
	}
	if n != f.Size {
		return &Error{f.Name, fmt.Sprintf("has %d bytes, its index says %d", n, f.Size), getAgain}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != f.SHA256 {
		return &Error{f.Name, fmt.Sprintf("has the SHA-256 %.12s…, its index says %.12s…", got, f.SHA256), getAgain}
	}
	role, err := kindOf(f.Name, content, n)
	var other *KindError
	if errors.As(err, &other) {
		return &Error{f.Name, other.Problem, other.Remedy}
	}
	if err != nil {
		return err
	}
	if role != f.Role {
		return &Error{f.Name, fmt.Sprintf("is %s, its index says %s", role, f.Role), getAgain}
	}
	return nil
}

// summary prints what a bundle holds.
func summary(out io.Writer, x Index) {
	for _, role := range roles {
		n, size := 0, int64(0)
		for _, f := range x.Files {
			if f.Role == role {
				n, size = n+1, size+f.Size
			}
		}
		if role == Notebook {
			fmt.Fprintf(out, "  %-9s %s, %s\n", role, x.Notebook, bytesText(size))
		} else if n > 0 {
			fmt.Fprintf(out, "  %-9s %d, %s\n", role, n, bytesText(size))
		}
	}
}

// describe says how a bundle was made, what to beware of, and how to run it again.
func describe(out io.Writer, x Index, dir string, warned []int) {
	fmt.Fprintf(out, "made with %s on %s", x.Versions["go"], x.Versions["platform"])
	for _, module := range slices.Sorted(maps.Keys(x.Versions)) {
		if strings.HasPrefix(module, "github.com/gomlx/") {
			fmt.Fprintf(out, ", %s %s", module, x.Versions[module])
		}
	}
	fmt.Fprintln(out, "\nnames, sizes and digests are as its index says; who made it, that does not show. Nothing in it was executed.")
	if len(warned) > 0 {
		fmt.Fprintf(out, "warning: outputs of the notebook hold scripts, in cell %s. Nothing was stripped; Jupyter does not trust the notebook and will not run them, unless you run the cells or say `jupyter trust`.\n",
			strings.Trim(strings.ReplaceAll(fmt.Sprint(warned), " ", ", "), "[]"))
	}
	fmt.Fprintln(out, "To run it again, which executes its code, so read it first:")
	fmt.Fprintln(out, "  espalier run", quote(filepath.Join(dir, notebooks, x.Notebook)))
	replays := 0
	for _, f := range x.Files {
		if f.Role == Manifest {
			if replays++; replays == 1 {
				fmt.Fprintln(out, "  espalier replay", quote(filepath.Join(dir, filepath.FromSlash(f.Name))))
			}
		}
	}
	if replays > 1 {
		fmt.Fprintf(out, "and so each of the %d manifests, or several at once.\n", replays)
	}
}

// quote writes a path so that a shell takes it as it is: names in a bundle are chosen by whoever made it, and these lines are made to be pasted.
func quote(name string) string {
	if strings.HasPrefix(name, "-") {
		name = "." + string(filepath.Separator) + name
	}
	plain := func(r rune) bool {
		return r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=@,", r))
	}
	if strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
