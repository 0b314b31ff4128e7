// Command profilecmd is `espalier profile`: what a network costs, layer by layer. It is a program of its own since it uses GoMLX, which the command espalier does without.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/onnx"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/store"
	"github.com/espalier-ml/espalier/pkg/trace"
)

const usage = `usage: espalier profile NETWORK|MODEL.onnx [--batch N] [--json FILE] [--png FILE] [--counts]
       espalier profile --widths
`

// usageError says what of the arguments can't be understood.
type usageError string

func (e usageError) Error() string { return string(e) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr, backend.Open)
	if err == nil {
		return
	}
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		return
	}
	fmt.Fprintln(os.Stderr, "espalier profile:", err)
	var wrong usageError
	if errors.As(err, &wrong) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	os.Exit(1)
}

// options are the command's arguments.
type options struct {
	network   string
	batch     int
	json, png string // files, absolute; "": none
	counts    bool   // only
	widths    bool   // instead
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("profile", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	dir := f.String("dir", "", "where relative paths begin: the user's directory; this program runs in the project's")
	f.IntVar(&o.batch, "batch", 1, "examples at once")
	f.StringVar(&o.json, "json", "", "also write the records to this file, one a line")
	f.StringVar(&o.png, "png", "", "also draw the layers' shares into this file")
	f.BoolVar(&o.counts, "counts", false, "count only, and measure nothing")
	f.BoolVar(&o.widths, "widths", false, "measure how latency grows with the width of a layer on this machine")
	var names []string
	for rest := args; ; { // flags may stand before the name and behind it
		if err := f.Parse(rest); errors.Is(err, flag.ErrHelp) {
			return o, err
		} else if err != nil {
			return o, usageError(err.Error())
		}
		if rest = f.Args(); len(rest) == 0 {
			break
		}
		names, rest = append(names, rest[0]), rest[1:]
	}
	switch {
	case o.batch < 1:
		return o, usageError(fmt.Sprintf("--batch is %d: give at least 1", o.batch))
	case o.widths && len(names) > 0 || !o.widths && len(names) != 1:
		return o, usageError(fmt.Sprintf("%d networks are given, expected one, or --widths alone", len(names)))
	case o.counts && o.png != "":
		return o, usageError("--png draws what was measured: leave out --counts")
	case !o.widths:
		o.network = names[0]
	}
	paths := []*string{&o.json, &o.png}
	if isFile(o.network) {
		paths = append(paths, &o.network)
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(*dir, *path)
		}
	}
	return o, nil
}

// network is what can be profiled.
type network struct {
	name   string
	store  *model.Store
	model  trace.ModelFn
	inputs func(batch int) ([]shapes.Shape, error)
}

// find returns the network that the user means: an ONNX file, by its path, or a reference network, by its name.
func find(name string) (network, error) {
	if isFile(name) {
		return fromONNX(name)
	}
	n, err := nets.Find(name)
	if err != nil {
		return network{}, fmt.Errorf("%w; the name of a model's file ends in .onnx", err)
	}
	return network{n.Name, model.NewStore(), trace.Single(n.Model), func(batch int) ([]shapes.Shape, error) {
		return []shapes.Shape{shapes.Make(dtypes.Float32, append([]int{batch}, n.Input...)...)}, nil
	}}, nil
}

// isFile tells the path of a model from the name of a network.
func isFile(name string) bool { return strings.EqualFold(filepath.Ext(name), ".onnx") }

func fromONNX(path string) (network, error) {
	m, err := onnx.Read(path)
	if err != nil {
		return network{}, err
	}
	return network{filepath.Base(path), m.Store, m.ModelFn, func(batch int) ([]shapes.Shape, error) {
		all, err := m.Shapes(map[string]int{m.FreeBatch(): batch})
		if err == nil && m.FreeBatch() == "" && all[0].Rank() > 0 && all[0].Dimensions[0] != batch {
			err = usageError(fmt.Sprintf("--batch is %d: %s takes batches of %d and no others", batch, filepath.Base(path), all[0].Dimensions[0]))
		}
		return all, err
	}}, nil
}

func run(ctx context.Context, args []string, out, progress io.Writer, open func() (compute.Backend, error)) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.widths {
		return widths(ctx, out, progress, open)
	}
	n, err := find(o.network)
	if err != nil {
		return err
	}
	inputs, err := n.inputs(o.batch)
	if err != nil {
		return err
	}
	b, err := open()
	if err != nil {
		return err
	}
	var p profile.Profile
	if o.counts {
		p, err = profile.OfModel(b, n.store, n.model, inputs...)
	} else {
		fmt.Fprintf(progress, "compiling and timing %s, each layer alone too …\n", n.name)
		p, err = profile.Measure(ctx, b, n.store, n.model, profile.MeasureConfig{}, inputs...)
	}
	if err != nil {
		return err
	}
	t := p.Table()
	t.Title = fmt.Sprintf("%s, batch %d: %s", n.name, o.batch, t.Title)
	if s := p.Params() - p.Trained(); s > 0 {
		t.Caption += fmt.Sprintf(" Trained parameters: %s; the other %s are running statistics.", report.Count(p.Trained()), report.Count(s))
	}
	if err := t.Text(out); err != nil {
		return err
	}
	records := p.Records(n.name)
	for i := range records {
		records[i].Labels["batch"] = fmt.Sprint(o.batch)
	}
	if o.json != "" {
		if err := report.WriteRecords(o.json, records); err != nil {
			return fmt.Errorf("--json: %w", err)
		}
	}
	if o.png == "" {
		return nil
	}
	forms, err := shares(n.name, records).MIMEBundle()
	if err != nil {
		return fmt.Errorf("--png: %w", err)
	}
	return store.WriteFile(o.png, func(w io.Writer) error {
		_, err := w.Write(forms["image/png"].([]byte))
		return err
	})
}

func widths(ctx context.Context, out, progress io.Writer, open func() (compute.Backend, error)) error {
	b, err := open()
	if err != nil {
		return err
	}
	fmt.Fprintln(progress, "timing layers of widths from 32 to 64, once on each machine …")
	w, err := profile.RoundTo(ctx, b, profile.WidthsConfig{})
	var unsaved *store.SaveError
	if errors.As(err, &unsaved) {
		fmt.Fprintln(progress, "the result could not be kept:", err)
		err = nil
	}
	if err != nil {
		return err
	}
	return w.Table().Text(out)
}
