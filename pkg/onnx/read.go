// Package onnx reads ONNX models as GoMLX model functions, and writes GoMLX model functions as ONNX models.
//
// Reading is onnx-gomlx's, behind checks of ours: a file that contradicts itself, asks for more memory than it has bytes for, or names data outside of its folder is
// refused before anything is allocated.
//
// Writing is ours: a model function is recorded (pkg/trace) and its operations are written as ONNX's, with a free batch size. No ONNX Runtime is needed for it.
package onnx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	importer "github.com/gomlx/onnx-gomlx/onnx"
	"github.com/gomlx/onnx-gomlx/onnx/parser"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// maxFile is what Protocol Buffers, the format of ONNX, can hold.
const maxFile = math.MaxInt32

// Dim is an axis of an input or output.
type Dim struct {
	Size int    // -1: whatever comes
	Name string // of an axis of any size, such as "batch"; axes of one name have one size
}

// Port is an input or output.
type Port struct {
	Name  string
	DType dtypes.DType
	Dims  []Dim
}

// free is the name of an axis that has no size of its own, for Model.Shapes; "" for one that has.
func (p Port) free(axis int) string {
	switch d := p.Dims[axis]; {
	case d.Size >= 0:
		return ""
	case d.Name != "":
		return d.Name
	}
	return fmt.Sprintf("%s:%d", p.Name, axis)
}

func (p Port) String() string {
	dims := make([]string, len(p.Dims))
	for i, d := range p.Dims {
		switch {
		case d.Size >= 0:
			dims[i] = fmt.Sprint(d.Size)
		case d.Name != "":
			dims[i] = d.Name
		default:
			dims[i] = "?"
		}
	}
	return shown(fmt.Sprintf("%s %s[%s]", p.Name, p.DType, strings.Join(dims, ", ")))
}

// Model is an ONNX model that was read.
type Model struct {
	Name     string
	Producer string // the program that wrote it, such as "pytorch"
	Opset    int
	// Inputs and Outputs in the order of the file, which is that of ModelFn.
	Inputs, Outputs []Port
	// Store has the constants of the file as variables: of "layer1.0.conv1.weight" the path is "/ONNX/layer1.0.conv1.weight". Those that training must not change are not
	// trainable: integers, single numbers such as the bounds of a Clip, and the statistics of batch normalisation, which stays as in inference while the model is trained.
	Store *model.Store

	file  string
	graph importer.Model
}

// Read reads a model from a file, with external data in the same folder, if it has any.
//
// The error is an *Error.
func Read(path string) (*Model, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("no regular file")
	}
	if err != nil {
		return nil, &Error{Kind: ErrMissing, File: path, Expected: "an ONNX model", Came: "none that can be read", Err: err}
	}
	tooLarge := func(came int64) error {
		return &Error{Kind: ErrLimit, File: path, Expected: fmt.Sprintf("at most %d bytes, which is all that the format can hold", maxFile), Came: fmt.Sprint(came),
			Remedy: "export it with its weights as external data"}
	}
	if info.Size() > maxFile {
		return nil, tooLarge(info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Kind: ErrMissing, File: path, Expected: "an ONNX model", Came: "none that can be read", Err: err}
	}
	defer f.Close()
	content := make([]byte, info.Size())
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, &Error{Kind: ErrMissing, File: path, Expected: fmt.Sprintf("%d bytes", info.Size()), Came: "fewer", Err: err}
	}
	return parse(content, path, filepath.Dir(path))
}

// Parse is Read for a model in memory, which may have no external data.
func Parse(content []byte) (*Model, error) { return parse(content, "", "") }

func parse(content []byte, file, dir string) (*Model, error) {
	c := &checker{file: file, dir: dir, outside: map[string]int64{}, fixed: map[string]bool{}, same: map[string]string{}}
	proto, err := parseModel(content)
	if err == nil {
		err = c.model(proto)
	}
	if err != nil {
		return nil, c.broken("", err)
	}
	cleaned, err := clean(content)
	if err != nil {
		return nil, c.broken("", err)
	}
	m := &Model{Producer: proto.producer, Opset: int(proto.opsets[""]), Store: model.NewStore(), file: file}
	if err := m.ports(c, cleaned); err != nil {
		return nil, err
	}
	err = guard.Run("read the graph", func() error {
		var err error
		if m.graph, err = parser.Parse(cleaned); err != nil {
			return err
		}
		m.Name = m.graph.Name()
		// Fused operations would be taken apart again by pkg/trace, and leave constants behind that are joined from those of the file.
		m.graph.DisableFusion()
		m.graph.FreeUnusedVariables()
		reader := &externalReader{dir: dir}
		m.graph.WithExternalDataReader(reader)
		return errors.Join(m.graph.VariablesToScope(m.Store.RootScope()), reader.Close())
	})
	if err != nil {
		return nil, c.bad(ErrFormat, "", "a model that can be read", "one that can't", "", err)
	}
	fixed := map[string]bool{}
	for name := range c.fixed {
		fixed[variable(c.origin(name))] = true
	}
	for v := range m.Store.IterVariables() {
		v.Trainable = v.DType().IsFloat() && v.Shape().Rank() > 0 && !fixed[v.Path()]
	}
	return m, nil
}

// prefix is the scope of the variables of a model that was read.
const prefix = model.ScopeSeparator + importer.ModelScope + model.ScopeSeparator

// variable is the path of the variable that a constant becomes.
func variable(constant string) string {
	return prefix + strings.ReplaceAll(constant, model.ScopeSeparator, "|")
}

// constantName is the inverse of variable; of other paths it is what they are without the separator in front.
func constantName(path string) string {
	if name, ours := strings.CutPrefix(path, prefix); ours {
		return strings.ReplaceAll(name, "|", model.ScopeSeparator)
	}
	return strings.TrimPrefix(path, model.ScopeSeparator)
}

// ports reads the inputs and outputs of the cleaned model.
func (m *Model) ports(c *checker, cleaned []byte) error {
	proto, err := parseModel(cleaned)
	if err != nil {
		return c.broken("", err)
	}
	g, err := parseGraph(proto.graph)
	if err != nil {
		return c.broken("", err)
	}
	read := func(messages [][]byte, what string) (ports []Port, err error) {
		for _, message := range messages {
			p, err := parsePort(message)
			if err != nil {
				return nil, c.bad(ErrUnsupported, what, "tensors", "something else", "", err)
			}
			if p.DType == dtypes.InvalidDType {
				return nil, c.bad(ErrUnsupported, what+" "+p.Name, "numbers of a type that GoMLX has", "others", "", nil)
			}
			for i, d := range p.Dims {
				if d.Size < -1 {
					return nil, c.bad(ErrFormat, what+" "+p.Name, "sizes of 0 or more", fmt.Sprintf("%d for axis %d", d.Size, i), "", nil)
				}
			}
			ports = append(ports, p)
		}
		if len(ports) == 0 {
			return nil, c.bad(ErrUnsupported, "", "a model with an "+what, "none", "", nil)
		}
		return ports, nil
	}
	if m.Inputs, err = read(g.inputs, "input"); err != nil {
		return err
	}
	m.Outputs, err = read(g.outputs, "output")
	return err
}

// Shapes returns the shapes of the inputs with sizes for the axes that have none of their own, by their names; for axes without a name, by the input's name and the number
// of the axis: "x:0". The error is an *Error that names an axis which is not among them, a size that is for none, an input without a shape or with more bytes than
// there can be; the name "" is passed over.
func (m *Model) Shapes(sizes map[string]int) ([]shapes.Shape, error) {
	var all []shapes.Shape
	var free []string
	for _, in := range m.Inputs {
		if in.Dims == nil {
			return nil, &Error{Kind: ErrShape, File: m.file, Where: "input " + in.Name, Expected: "a shape", Came: "none, so that it may have any number of axes", Remedy: "export it with the shapes of its inputs"}
		}
		dims := make([]int, len(in.Dims))
		for i, d := range in.Dims {
			dims[i] = d.Size
			name := in.free(i)
			if name == "" {
				continue
			}
			free = append(free, name)
			size, given := sizes[name]
			if !given || size < 1 {
				known := slices.Sorted(maps.Keys(sizes))
				return nil, &Error{Kind: ErrShape, File: m.file, Where: "input " + in.String(), Expected: fmt.Sprintf("a size for the axis %q", name),
					Came: fmt.Sprintf("sizes for %q", known), Remedy: "give one: a network is compiled for sizes, one after the other"}
			}
			dims[i] = size
		}
		bytes := in.DType.Size()
		for _, d := range dims {
			if d > 0 && bytes > math.MaxInt/d {
				return nil, &Error{Kind: ErrLimit, File: m.file, Where: "input " + in.String(), Expected: "sizes whose product a memory can have", Came: fmt.Sprint(dims), Remedy: "give smaller ones, or export it with smaller ones"}
			}
			bytes *= d
		}
		all = append(all, shapes.Make(in.DType, dims...))
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if name != "" && !slices.Contains(free, name) { // "" is what FreeBatch says of a batch that is fixed
			return nil, &Error{Kind: ErrShape, File: m.file, Expected: fmt.Sprintf("sizes for the axes %q", free), Came: fmt.Sprintf("one for %q", name), Remedy: "leave it out: all others have the sizes of the file"}
		}
	}
	return all, nil
}

// FreeBatch is the name of the first axis of the inputs, for Shapes, if it may have any size; "" if it may not.
func (m *Model) FreeBatch() string {
	if len(m.Inputs[0].Dims) == 0 {
		return ""
	}
	return m.Inputs[0].free(0)
}

// ModelFn is the model's function. It takes its variables from the scope that it is given, so that it serves with other stores than m.Store, too, such as one that was made
// smaller. It panics with an *Error on inputs of other shapes and on operations whose rule wants constants where the model computes something, as functions that build graphs do.
// It must not build two graphs at once.
func (m *Model) ModelFn(scope *model.Scope, inputs []*graph.Node) []*graph.Node {
	if len(inputs) != len(m.Inputs) {
		panic(error(&Error{Kind: ErrShape, File: m.file, Expected: fmt.Sprintf("%d inputs", len(m.Inputs)), Came: fmt.Sprint(len(inputs))}))
	}
	given := map[string]*graph.Node{}
	for i, in := range m.Inputs {
		given[in.Name] = inputs[i]
	}
	var names []string
	for _, out := range m.Outputs {
		names = append(names, out.Name)
	}
	var outputs []*graph.Node
	err := guard.Run("build the graph", func() error {
		outputs = m.graph.CallGraph(scope, inputs[0].Graph(), given, names...)
		return nil
	})
	if err != nil {
		panic(error(&Error{Kind: ErrShape, File: m.file, Expected: "inputs and constants that its operations can take", Came: fmt.Sprintf("inputs %v", shapesOf(inputs)), Err: err,
			Remedy: "where that names an axis, fix its size when exporting the model; where it names an operation, replace it"}))
	}
	return outputs
}

var _ trace.ModelFn = (&Model{}).ModelFn

func shapesOf(nodes []*graph.Node) []shapes.Shape {
	all := make([]shapes.Shape, len(nodes))
	for i, n := range nodes {
		all[i] = n.Shape()
	}
	return all
}

// externalReader reads external data below a folder, and nowhere else.
type externalReader struct {
	dir   string
	root  *os.Root
	files map[string]*os.File
}

// ReadInto implements the importer's ExternalDataReader.
func (r *externalReader) ReadInto(info importer.ExternalDataInfo, output []byte) error {
	if r.root == nil {
		root, err := os.OpenRoot(r.dir)
		if err != nil {
			return err
		}
		r.root, r.files = root, map[string]*os.File{}
	}
	f := r.files[info.Location]
	if f == nil {
		var err error
		if f, err = r.root.Open(info.Location); err != nil {
			return err
		}
		r.files[info.Location] = f
	}
	_, err := f.ReadAt(output, info.Offset)
	if errors.Is(err, io.EOF) { // the file has become shorter since it was checked
		err = fmt.Errorf("%s ends early: %w", info.Location, fs.ErrInvalid)
	}
	return err
}

// Close implements the importer's ExternalDataReader. What was closed is opened again when it is needed.
func (r *externalReader) Close() error {
	var err error
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	if r.root != nil {
		err = errors.Join(err, r.root.Close())
	}
	r.root, r.files = nil, nil
	return err
}
