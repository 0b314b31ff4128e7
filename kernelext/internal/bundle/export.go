package bundle

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/pkg/store/archive"
)

const exportUsage = "; usage: export NOTEBOOK [-o FILE] [--run DIR…] [--limit SIZE]"

// Export is `espalier export`: it makes a bundle of a notebook and the manifests, records, masks and small results of directories of runs, and says
// what it leaves out. Without --run they are those that the notebook names by kernelext.Dir, as far as they are there. The bundle is opened once, out of
// sight, before it gets its name; of the same input the same bytes are made.
//
// Errors: *nbrun.UsageError, *nbrun.FormatError, *Error, *archive.Error, and those of the file system. Nothing of a bundle is left then.
func Export(ctx context.Context, args []string, out io.Writer) error {
	e, err := parseExport(args)
	if err != nil {
		return err
	}
	if _, err := os.Stat(e.notebook); errors.Is(err, os.ErrNotExist) {
		return &Error{e.notebook, "is not there", "give the path of a notebook"}
	}
	all, left, err := gather(ctx, e)
	if err != nil {
		return err
	}
	if same, err := occupied(e); err != nil || same != "" {
		return cmp.Or[error](err, &Error{e.output, same, "give another name with -o"})
	}
	absolute, err := filepath.Abs(e.notebook)
	if err != nil {
		return err
	}
	made, known, err := versions(filepath.Dir(absolute))
	if err != nil {
		return err
	}
	x := Index{Version: version, Notebook: filepath.Base(absolute), Versions: made}
	files := make([]archive.File, 1, 1+len(all))
	total := int64(0)
	for _, p := range all {
		x.Files = append(x.Files, p.File)
		files = append(files, archive.File{Name: p.Name, Size: p.Size, Open: func() (io.ReadCloser, error) { return p.open(ctx) }})
		total += p.Size
	}
	text, err := x.encode()
	if err != nil {
		return err
	}
	if total+int64(len(text)) > limits.Bytes || len(files) > limits.Files || len(text) > maxIndex {
		return &Error{e.output, fmt.Sprintf("would hold %d files of %s, at most %d of %s are possible", len(files), bytesText(total), limits.Files, bytesText(limits.Bytes)), "give fewer runs, or a lower --limit"}
	}
	files[0] = archive.File{Name: indexName, Size: int64(len(text)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }}

	err = archive.WriteFile(e.output, files, func(path string) error {
		_, _, err := unpack(ctx, path, filepath.Join(filepath.Dir(path), "check"))
		var differs *Error // from the index that was made of it just now
		if errors.As(err, &differs) {
			return &Error{differs.Path, "was changed while it was packed: it " + differs.Problem, "export it again when nothing writes to it"}
		}
		return err
	})
	if err != nil {
		return err
	}
	info, err := os.Stat(e.output)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s, %s unpacked\n", e.output, bytesText(info.Size()), bytesText(total))
	summary(out, x)
	left.print(out)
	if len(all) == 1 {
		fmt.Fprintln(out, "it holds no runs: name their directories with --run, such as the one that `espalier run --state DIR` filled")
	}
	if !known {
		fmt.Fprintln(out, "there is no go.mod above the notebook, so the bundle does not say which modules it was made with")
	}
	fmt.Fprintf(out, "another machine opens it with: espalier open %s\n", quote(filepath.Base(e.output)))
	return nil
}

// exporting is what the command line of export says.
type exporting struct {
	notebook, output string
	runs             []string
	limit            int64 // of each file but the notebook
}

func parseExport(args []string) (e exporting, err error) {
	e.limit = 8 << 20
	flags := flag.NewFlagSet("export", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&e.output, "o", "", "the bundle")
	flags.Func("run", "directory of runs", func(dir string) error { e.runs = append(e.runs, dir); return nil })
	flags.Func("limit", "size of the largest file", func(text string) error { e.limit, err = parseSize(text); return err })
	for rest := args; ; rest = flags.Args()[1:] {
		if err := flags.Parse(rest); err != nil {
			return e, &nbrun.UsageError{Problem: err.Error() + exportUsage}
		}
		if flags.NArg() == 0 {
			break
		}
		switch arg := flags.Arg(0); {
		case strings.HasSuffix(arg, ".ipynb") && e.notebook == "":
			e.notebook = arg
		case len(e.runs) > 0 && !strings.HasSuffix(arg, ".ipynb"):
			e.runs = append(e.runs, arg) // --run a b, as a shell makes it of --run runs/*
		default:
			return e, &nbrun.UsageError{Problem: fmt.Sprintf("%q is one too many, or no notebook", arg) + exportUsage}
		}
	}
	if e.notebook == "" {
		return e, &nbrun.UsageError{Problem: "no notebook given" + exportUsage}
	}
	if e.output == "" {
		e.output = strings.TrimSuffix(filepath.Base(e.notebook), ".ipynb") + ".tar.gz"
	}
	return e, nil
}

// parseSize reads a number of bytes: 8000000, 8MB, 8MiB.
func parseSize(text string) (int64, error) {
	number, factor := strings.TrimSpace(text), int64(1)
	for _, u := range []struct {
		suffix string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}} {
		if cut, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = strings.TrimSpace(cut), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > limits.Bytes/factor {
		return 0, fmt.Errorf("%q is no size up to %s: write 8MiB or a number of bytes", text, bytesText(limits.Bytes))
	}
	return n * factor, nil
}

// occupied says why the output's name can't be used: what is there would be lost.
func occupied(e exporting) (string, error) {
	there, err := os.Lstat(e.output)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if !there.Mode().IsRegular() {
		return "is there and is no file", nil
	}
	f, err := os.Open(e.output)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// A bundle is made anew. It begins with the name of its index, and other archives, such as data, are compressed too.
	first := make([]byte, len(indexName)+1)
	z, err := gzip.NewReader(f)
	if err == nil {
		_, err = io.ReadFull(z, first)
	}
	if err != nil || string(first) != indexName+"\x00" {
		return "is there and is no bundle", nil
	}
	return "", nil
}

// packed is a file to be packed.
type packed struct {
	File
	dir  string // that is not left in reading, or "" for the notebook
	path string // in it
}

func (p packed) open(ctx context.Context) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p.dir == "" {
		return os.Open(p.path)
	}
	return os.OpenInRoot(p.dir, p.path)
}

// digest fills in size and digest.
func (p *packed) digest(ctx context.Context) error {
	r, err := p.open(ctx)
	if err != nil {
		return err
	}
	h := sha256.New()
	p.Size, err = io.Copy(h, r)
	p.SHA256 = hex.EncodeToString(h.Sum(nil))
	return errors.Join(err, r.Close())
}

// gather finds what goes into a bundle, sorted by name, and what does not.
func gather(ctx context.Context, e exporting) (all []packed, left leftOut, err error) {
	data, err := readNotebook(e.notebook)
	if err != nil {
		return nil, nil, err
	}
	if _, err := scripts(e.notebook, data); err != nil {
		return nil, nil, err
	}
	asked := len(e.runs) > 0
	if !asked {
		if e.runs, err = ownRuns(data); err != nil {
			return nil, nil, err
		}
	}
	name := filepath.Base(e.notebook)
	all = append(all, packed{File: File{Name: notebooks + name, Role: Notebook}, path: e.notebook})
	taken := map[string]bool{}
	for _, dir := range e.runs {
		absolute, err := filepath.Abs(dir)
		if err != nil {
			return nil, nil, err
		}
		base := filepath.Base(absolute)
		for i := 2; taken[strings.ToLower(base)]; i++ {
			base = fmt.Sprintf("%s-%d", filepath.Base(absolute), i)
		}
		taken[strings.ToLower(base)] = true
		found, err := run(ctx, dir, runs+base+"/", e.limit, &left)
		if err != nil {
			return nil, nil, err
		}
		if len(found) == 0 && asked {
			return nil, nil, &Error{dir, "holds no manifests, records, masks or results", "give the directory that the notebook gave as Comparison.Dir"}
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, func(a, b packed) int { return cmp.Compare(a.Name, b.Name) })
	for i := range all {
		if err := all[i].digest(ctx); err != nil {
			return nil, nil, err
		}
	}
	return all, left, nil
}

func readNotebook(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &nbrun.FormatError{Path: path, Problem: "it is no file"}
	}
	if info.Size() > maxNotebook {
		return nil, &Error{path, fmt.Sprintf("has %s, a notebook may have %s", bytesText(info.Size()), bytesText(maxNotebook)), "clear its large outputs"}
	}
	return os.ReadFile(path)
}
