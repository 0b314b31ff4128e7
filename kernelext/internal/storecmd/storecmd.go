// Package storecmd is `espalier store`: looking at the results that are kept, checking them, making room, and passing them on.
package storecmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/store"
)

// ErrDamaged says that something in the store was damaged; what has been printed.
var ErrDamaged = errors.New("the store had damaged or missing parts: see above; what they were is computed again when it is asked for")

// maxShown bounds the content that show prints.
const maxShown = 64 << 10

const usage = `usage: store [--store DIR] COMMAND
  ls [PREFIX]            the results, the last first
  show NAME [-o FILE]    one result: what it was computed from, and its content; -o writes the content to a file
  verify                 read everything and compare it with its digest
  gc [--max SIZE]        remove what nothing refers to; with --max, such as 2GB, also the results bound longest ago until that is met
  export FILE [NAME…]    write results, or all, to a file
  import FILE            take over the results of such a file`

type command struct {
	name  string
	makes bool // a store where there is none; the others are about one that is there
	run   func(ctx context.Context, s *store.Store, args []string, out io.Writer) error
}

var commands = []command{{"ls", false, ls}, {"show", false, show}, {"verify", false, verify}, {"gc", false, gc}, {"export", false, export}, {"import", true, imported}}

// Run runs `espalier store`.
//
// Errors: *nbrun.UsageError; ErrDamaged; those of package store.
func Run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("store", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	dir := flags.String("store", "", "")
	if err := flags.Parse(args); err != nil || flags.NArg() == 0 {
		return &nbrun.UsageError{Problem: usage}
	}
	at := slices.IndexFunc(commands, func(c command) bool { return c.name == flags.Arg(0) })
	if at < 0 {
		return &nbrun.UsageError{Problem: fmt.Sprintf("there is no command %q\n%s", flags.Arg(0), usage)}
	}
	given := *dir != "" || os.Getenv(store.Env) != ""
	if *dir == "" {
		var err error
		if *dir, err = store.DefaultDir(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(*dir); errors.Is(err, fs.ErrNotExist) && !commands[at].makes {
		if !given && commands[at].name == "ls" {
			fmt.Fprintf(out, "%s: there is no store yet, as no result has been kept\n", *dir)
			return nil
		}
		return fmt.Errorf("%s: expected a store, came a path where there is nothing; give another with --store or %s, or keep a result first", *dir, store.Env)
	}
	s, err := store.Open(*dir)
	if err != nil {
		return err
	}
	return commands[at].run(ctx, s, flags.Args()[1:], out)
}

// parse reads flags that may stand before or after the other arguments, of which there are between least and most.
func parse(flags *flag.FlagSet, args []string, least, most int) ([]string, error) {
	flags.SetOutput(io.Discard)
	var rest []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, &nbrun.UsageError{Problem: fmt.Sprintf("%v\n%s", err, usage)}
		}
		if flags.NArg() == 0 {
			break
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
	if len(rest) < least || len(rest) > most {
		return nil, &nbrun.UsageError{Problem: usage}
	}
	return rest, nil
}

func ls(_ context.Context, s *store.Store, args []string, out io.Writer) error {
	rest, err := parse(flag.NewFlagSet("ls", flag.ContinueOnError), args, 0, 1)
	if err != nil {
		return err
	}
	prefix := strings.Join(rest, "")
	refs, damaged := s.Refs()
	t := report.Table{Columns: []report.Column{{Name: "name"}, {Name: "key"}, {Name: "seed"}, {Name: "size"}, {Name: "object"}}}
	for _, r := range refs {
		if !strings.HasPrefix(r.Name, prefix) {
			continue
		}
		var in struct {
			Seed *int64 `json:"seed"`
		}
		_ = json.Unmarshal(r.Inputs, &in) // one that says no seed has none to show
		var seed any
		if in.Seed != nil {
			seed = *in.Seed
		}
		t.Rows = append(t.Rows, []any{r.Name, short(r.Key), seed, sizeText(r.Size), short(string(r.Object))})
	}
	if len(t.Rows) > 0 {
		if err := t.Text(out); err != nil {
			return err
		}
	}
	u, err := s.Usage()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d of %d results; %s in all, of that %s of runs that are not finished, and %s damaged and set aside\n",
		s.Dir(), len(t.Rows), u.Refs, sizeText(u.Bytes), sizeText(u.RunBytes), sizeText(u.QuarantineBytes))
	return damaged
}

func short(text string) string { return text[:min(12, len(text))] }

// find returns the reference of NAME, or of NAME@KEY, where the first digits of the key will do.
func find(s *store.Store, given string) (store.Ref, error) {
	name, key, _ := strings.Cut(given, "@")
	refs, err := s.Refs()
	for _, r := range refs { // the last bound first
		if r.Name == name && strings.HasPrefix(r.Key, key) {
			return r, nil
		}
	}
	if err != nil {
		return store.Ref{}, err
	}
	return store.Ref{}, fmt.Errorf("no result is named %q in %s: `espalier store ls` lists those that are", given, s.Dir())
}

func show(_ context.Context, s *store.Store, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("show", flag.ContinueOnError)
	file := flags.String("o", "", "")
	rest, err := parse(flags, args, 1, 1)
	if err != nil {
		return err
	}
	ref, err := find(s, rest[0])
	if err != nil {
		return err
	}
	content, err := s.Get(ref.Object)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "name     %s\nkey      %s\nobject   %s\nsize     %s\n", ref.Name, ref.Key, ref.Object, sizeText(ref.Size))
	if len(ref.Inputs) > 0 {
		fmt.Fprintf(out, "inputs   %s\n", indented(ref.Inputs))
	}
	for _, name := range slices.Sorted(maps.Keys(ref.Versions)) {
		fmt.Fprintf(out, "version  %s %s\n", word(name), word(ref.Versions[name]))
	}
	switch {
	case *file != "":
		if err := store.WriteFile(*file, func(w io.Writer) error { _, err := w.Write(content); return err }); err != nil {
			return err
		}
		fmt.Fprintf(out, "written to %s\n", *file)
	case len(content) > maxShown:
		fmt.Fprintf(out, "content  %s: write it to a file with -o FILE\n", sizeText(ref.Size))
	case json.Valid(content):
		fmt.Fprintf(out, "content  %s\n", indented(content))
	case printable(content):
		fmt.Fprintf(out, "content\n%s\n", content)
	default:
		fmt.Fprintf(out, "content  %s that are no text: write them to a file with -o FILE\n", sizeText(ref.Size))
	}
	return nil
}

// printable tells whether text can be shown without harm to a terminal.
func printable(text []byte) bool {
	return utf8.Valid(text) && !bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 })
}

// word is text for a line, quoted where it is not plain.
func word(text string) string {
	if quoted := strconv.Quote(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}

// indented is JSON for people, quoted where a text in it has what JSON leaves as it is and a terminal does not.
func indented(text []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, text, "         ", "  ") != nil || !printable(b.Bytes()) {
		return strconv.Quote(string(text))
	}
	return b.String()
}

func verify(ctx context.Context, s *store.Store, args []string, out io.Writer) error {
	if _, err := parse(flag.NewFlagSet("verify", flag.ContinueOnError), args, 0, 0); err != nil {
		return err
	}
	r, err := s.Verify(ctx)
	for _, d := range r.Damaged {
		fmt.Fprintln(out, "damaged:", d)
	}
	for _, d := range r.Dangling {
		fmt.Fprintf(out, "missing: the content of %s (key %s, object %s)\n", d.Name, short(d.Key), short(string(d.Object)))
	}
	for _, path := range r.Strange {
		fmt.Fprintln(out, "not of the store:", path)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d results and %d objects are whole (%s); %d objects have no name\n", s.Dir(), r.Refs-len(r.Dangling), r.Objects, sizeText(r.Bytes), r.Unreferenced)
	if len(r.Damaged)+len(r.Dangling) > 0 {
		return ErrDamaged
	}
	return nil
}

func gc(ctx context.Context, s *store.Store, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("gc", flag.ContinueOnError)
	most := int64(-1)
	flags.Func("max", "", func(text string) (err error) { most, err = parseSize(text); return err })
	if _, err := parse(flags, args, 0, 0); err != nil {
		return err
	}
	c, err := s.GC(ctx, most)
	for _, r := range c.Refs {
		fmt.Fprintf(out, "removed %s (key %s, %s)\n", r.Name, short(r.Key), sizeText(r.Size))
	}
	fmt.Fprintf(out, "%s: %d results, %d objects, %d unfinished runs, %d damaged and %d left-over files removed, %s; %s left\n",
		s.Dir(), len(c.Refs), c.Objects, c.Runs, c.Aside, c.Litter, sizeText(c.Bytes), sizeText(c.Left))
	if err != nil || most < 0 || c.Left <= most {
		return err
	}
	u, err := s.Usage()
	rest := "is the store's own, or of what is being written"
	if u.Runs > 0 {
		rest = "is held by runs that are going on"
	}
	fmt.Fprintf(out, "that is more than %s: the rest %s\n", sizeText(most), rest)
	return err
}

func export(_ context.Context, s *store.Store, args []string, out io.Writer) error {
	rest, err := parse(flag.NewFlagSet("export", flag.ContinueOnError), args, 1, math.MaxInt)
	if err != nil {
		return err
	}
	if _, err := os.Stat(rest[0]); err == nil {
		return &nbrun.UsageError{Problem: fmt.Sprintf("%s is there already: give another name", rest[0])}
	}
	if err := store.WriteFile(rest[0], func(w io.Writer) error { return s.Export(w, rest[1:]...) }); err != nil {
		var damaged *store.DamagedError
		if errors.As(err, &damaged) {
			return fmt.Errorf("%w; or set it aside with `espalier store verify`, and export what is left", err)
		}
		return err
	}
	info, err := os.Stat(rest[0])
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s; another machine takes it over with: espalier store import %s\n", rest[0], sizeText(info.Size()), filepath.Base(rest[0]))
	return nil
}

func imported(_ context.Context, s *store.Store, args []string, out io.Writer) error {
	rest, err := parse(flag.NewFlagSet("import", flag.ContinueOnError), args, 1, 1)
	if err != nil {
		return err
	}
	f, err := os.Open(rest[0])
	if err != nil {
		return err
	}
	defer f.Close()
	in, err := s.Import(f)
	if err != nil {
		return fmt.Errorf("%s: %w", rest[0], err)
	}
	for _, r := range in.Refs {
		fmt.Fprintf(out, "%s (key %s, %s)\n", r.Name, short(r.Key), sizeText(r.Size))
	}
	for _, r := range in.Kept {
		fmt.Fprintf(out, "%s (key %s) is left as it was: the store has another result under that name\n", r.Name, short(r.Key))
	}
	fmt.Fprintf(out, "%s: %d new results (%s), %d were there; each is as its digest says, and nothing was executed\n", s.Dir(), len(in.Refs), sizeText(in.Bytes), in.Same)
	return nil
}

var units = []struct {
	name string
	size float64
}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}}

// parseSize reads sizes as 2GB, 500 MB or 1024.
func parseSize(text string) (int64, error) {
	number, factor := strings.ToUpper(strings.TrimSpace(text)), 1.0
	for _, u := range units {
		if cut, found := strings.CutSuffix(number, u.name); found {
			number, factor = strings.TrimSpace(cut), u.size
			break
		}
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || !(x >= 0 && x*factor < 1<<62) {
		return 0, fmt.Errorf("%q is no size: expected a number and a unit, as 2GB, 500MB or 1024", text)
	}
	return int64(x * factor), nil
}

func sizeText(n int64) string {
	for _, u := range units[:len(units)-1] {
		if float64(n) >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
