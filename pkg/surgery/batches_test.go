package surgery

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// Traced with one example, a network has the groups that it has with several, and what is left of it takes any number.
func TestOneExampleStandsForAll(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		name string
		fn   trace.ModelFn
		dims []int
		want string
	}{
		{"pairs of channels of all examples in one axis", trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			batch := x.Shape().Dim(0)
			x = layers.Dense(s.In("a"), x, true, 6)
			x = graph.Tanh(graph.Reshape(x, 3*batch, 2)) // for one example, units could go that are 3×2; for several, none can
			x = relu(layers.Dense(s.In("b"), graph.Reshape(x, batch, 6), true, 4))
			return layers.Dense(s.In("c"), x, true, 2)
		}), []int{3}, "/b/dense/weights:1: 4 units in /b/dense/weights:1, /b/dense/biases:0, /c/dense/weights:0\n"},
		{"places mixed after a softmax over them", trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
			x = graph.Softmax(layers.Dense(s.In("a"), x, true, 6), 1) // [batch, 4, 6]
			x = layers.Dense(s.In("mix"), graph.Transpose(x, 1, 2), true, 5)
			return layers.Dense(s.In("c"), graph.Transpose(x, 1, 2), true, 2)
		}), []int{4, 3}, "/a/dense/weights:1: 6 units in /a/dense/weights:1, /a/dense/biases:0, /c/dense/weights:0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shape := func(batch int) shapes.Shape { return float(append([]int{batch}, c.dims...)...) }
			store := network(t, b, c.fn, shape(1))
			n, err := Trace(b, store, c.fn, shape(1))
			if err != nil {
				t.Fatal(err)
			}
			several, err := Trace(b, store, c.fn, shape(3))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, n.String()); diff != "" {
				t.Errorf("groups (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(several.String(), n.String()); diff != "" {
				t.Errorf("groups (-traced with three examples +with one)\n%s", diff)
			}
			p := half(n, 1)
			small, err := p.Apply()
			if err != nil {
				t.Fatal(err)
			}
			masked, err := p.Masked()
			if err != nil {
				t.Fatal(err)
			}
			again := rebuilt(t, p, small.Store, c.fn)
			for _, batch := range []int{1, 2, 3} {
				x := noise(uint64(batch), shape(batch))
				want := call(t, b, masked, c.fn, false, x)[0]
				near(t, "output", want, call(t, b, small.Store, small.ModelFn, false, x)[0])
				near(t, "output of the network made again", want, call(t, b, small.Store, again.ModelFn, false, x)[0])
			}
		})
	}
}

// rebuilt makes the smaller network again from its weights and the plan as JSON.
func rebuilt(t *testing.T, p *Plan, weights *model.Store, fn trace.ModelFn) *Small {
	t.Helper()
	var plan bytes.Buffer
	if err := p.WriteJSON(&plan); err != nil {
		t.Fatal(err)
	}
	small, err := Rebuild(open(t), weights, fn, &plan)
	if err != nil {
		t.Fatal(err)
	}
	return small
}

// Functions that take one example only are traced with it alone, and a note says so.
func TestFunctionsOfOneExample(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		name string
		flat func(x *graph.Node) *graph.Node
		note string
	}{
		{"a shape of its own", func(x *graph.Node) *graph.Node { return graph.Reshape(x, 1, 12) }, "with a batch of 5 the network can't be analysed"},
		{"variables that grow with the batch", func(x *graph.Node) *graph.Node { return graph.Reshape(x, 1, -1) }, "with a batch of 5 the network can't be analysed"},
		{"an error of its own", func(x *graph.Node) *graph.Node {
			if x.Shape().Dim(0) != 1 {
				panic(errors.New("one at a time"))
			}
			return graph.Reshape(x, 1, 12)
		}, "one at a time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fn := trace.Single(func(s *model.Scope, x *graph.Node) *graph.Node {
				return layers.Dense(s.In("b"), relu(layers.Dense(s.In("a"), c.flat(x), true, 6)), true, 2)
			})
			fresh, err := Trace(b, model.NewStore(), fn, float(1, 4, 3)) // its variables are made anew for each batch size
			if err != nil {
				t.Fatal(err)
			}
			store := network(t, b, fn, float(1, 4, 3))
			n, err := Trace(b, store, fn, float(1, 4, 3))
			if err != nil {
				t.Fatal(err)
			}
			want := "/a/dense/weights:1: 6 units in /a/dense/weights:1, /a/dense/biases:0, /b/dense/weights:0\n"
			for _, n := range []*Network{fresh, n} {
				if diff := cmp.Diff(want, n.String()); diff != "" {
					t.Errorf("groups (-want +got)\n%s", diff)
				}
				if notes := n.Notes(); !strings.Contains(notes[len(notes)-1], "the groups are those for a batch of 1: ") || !strings.Contains(notes[len(notes)-1], c.note) {
					t.Errorf("notes %q, want one of %q", notes, c.note)
				}
			}
			p := half(n, 1)
			small, err := p.Apply()
			if err != nil {
				t.Fatal(err)
			}
			masked, err := p.Masked()
			if err != nil {
				t.Fatal(err)
			}
			x := noise(1, float(1, 4, 3))
			near(t, "output", call(t, b, masked, fn, false, x)[0], call(t, b, small.Store, rebuilt(t, p, small.Store, fn).ModelFn, false, x)[0])
		})
	}
}

func TestWithOtherBatch(t *testing.T) {
	for _, c := range []struct{ in, want []shapes.Shape }{
		{[]shapes.Shape{float(1, 28, 28)}, []shapes.Shape{float(5, 28, 28)}},
		{[]shapes.Shape{float(1), float(), float(1, 1)}, []shapes.Shape{float(5), float(), float(5, 1)}},
		{[]shapes.Shape{float(1, 2), float(2, 1)}, nil},
		{[]shapes.Shape{float(4, 1)}, nil},
		{[]shapes.Shape{float()}, nil},
	} {
		if diff := cmp.Diff(c.want, withOtherBatch(c.in)); diff != "" {
			t.Errorf("%v (-want +got)\n%s", c.in, diff)
		}
	}
}
