package unit

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/params"
)

func param(dims ...int) params.Param {
	return params.Param{Path: "/layer/weights", Shape: shapes.Make(dtypes.Float32, dims...), In: len(dims) - 2, Out: len(dims) - 1}
}

func of(t *testing.T, u Unit, p params.Param) Layout {
	t.Helper()
	l, err := u.Of(p)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The unit of each weight of a matrix [2, 4], row by row.
func TestEachByHand(t *testing.T) {
	for _, test := range []struct {
		u    Unit
		want []int
	}{
		{Element, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{Filter, []int{0, 1, 2, 3, 0, 1, 2, 3}},
		{InChannel, []int{0, 0, 0, 0, 1, 1, 1, 1}},
		{Kernel, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{Block(1, 2), []int{0, 0, 1, 1, 2, 2, 3, 3}},
		{Block(2, 1), []int{0, 1, 2, 3, 0, 1, 2, 3}},
		{Block(2, 2), []int{0, 0, 1, 1, 0, 0, 1, 1}},
		{Head(2), []int{0, 0, 1, 1, 0, 0, 1, 1}},
		{NofM(1, 2, In), []int{0, 1, 2, 3, 4, 5, 6, 7}},
	} {
		l := of(t, test.u, param(2, 4))
		got := make([]int, 8)
		l.Each(func(weight, unit int) { got[weight] = unit })
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.u.Name, diff)
		}
	}
}

// Of a convolution [2, 1, 2, 3]: two positions, two inputs, three outputs.
func TestEachOfAConvolution(t *testing.T) {
	for _, test := range []struct {
		u    Unit
		want []int
	}{
		{Filter, []int{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}},
		{InChannel, []int{0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1}},
		{Kernel, []int{0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5}},
		{Block(2, 1), []int{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5}}, // at each position for itself
	} {
		l := of(t, test.u, param(2, 1, 2, 3))
		got := make([]int, 12)
		l.Each(func(weight, unit int) { got[weight] = unit })
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.u.Name, diff)
		}
	}
}

// Laws of every unit that fits: all units are as large, the shape that is pooled holds all weights, and the units that it leaves are those of Each.
func TestLaws(t *testing.T) {
	for _, dims := range [][]int{{4, 8}, {3, 3, 4, 8}, {1, 2, 8, 4}} {
		for _, u := range All() {
			p := param(dims...)
			l := of(t, u, p)
			counts := make([]int, l.Count)
			l.Each(func(_, unit int) { counts[unit]++ })
			for unit, n := range counts {
				if n != l.Size() {
					t.Errorf("%s of %v: unit %d has %d weights, want %d", u.Name, dims, unit, n, l.Size())
				}
			}
			shape, pooled := l.Split()
			size, units := 1, 1
			for axis, d := range shape {
				size *= d
				isPooled := false
				for _, a := range pooled {
					isPooled = isPooled || a == axis
				}
				if !isPooled {
					units *= d
				}
			}
			if size != p.Size() || units != l.Count {
				t.Errorf("%s of %v: split into %v, pooled over %v: %d weights in %d units, want %d in %d", u.Name, dims, shape, pooled, size, units, p.Size(), l.Count)
			}
			if again, ok := ByName(u.Name); !ok || again.Name != u.Name || again.M != u.M || again.Structured != u.Structured {
				t.Errorf("%q is not found by its name", u.Name)
			}
		}
	}
}

func TestGroupsByHand(t *testing.T) {
	collect := func(u Unit, dims ...int) (groups [][]int) {
		p := param(dims...)
		u.Groups(p, of(t, u, p), func(units []int) { groups = append(groups, append([]int{}, units...)) })
		return groups
	}
	for _, test := range []struct {
		name      string
		got, want [][]int
	}{
		{"1:2 along the inputs of [4, 2]", collect(NofM(1, 2, In), 4, 2), [][]int{{0, 2}, {1, 3}, {4, 6}, {5, 7}}},
		{"1:2 along the outputs of [2, 4]", collect(NofM(1, 2, Out), 2, 4), [][]int{{0, 1}, {2, 3}, {4, 5}, {6, 7}}},
		{"1:2 along the inputs of a convolution [2, 1, 2, 2]", collect(NofM(1, 2, In), 2, 1, 2, 2), [][]int{{0, 2}, {1, 3}, {4, 6}, {5, 7}}},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestWhatDoesNotFit(t *testing.T) {
	p := param(6, 10)
	for name, u := range map[string]Unit{
		"blocks that do not divide":  Block(4, 1),
		"blocks of nothing":          Block(1, 0),
		"M that does not divide":     NofM(2, 4, In),
		"all of M":                   NofM(2, 2, In),
		"none of M":                  NofM(0, 2, In),
		"more heads than outputs":    Head(11),
		"no heads":                   Head(0),
		"a block of another rank":    {Name: "x", Block: func(params.Param) ([]int, error) { return []int{1}, nil }},
		"a block that is refused":    {Name: "x", Block: func(p params.Param) ([]int, error) { return nil, &Error{"x", p.Path, "no", "none"} }},
		"M that is larger than both": NofM(1, 16, Out),
	} {
		_, err := u.Of(p)
		var bad *Error
		if !errors.As(err, &bad) || bad.Problem == "" || bad.Remedy == "" {
			t.Errorf("%s: got %v, want an *Error with a remedy", name, err)
		}
	}
	for name, p := range map[string]params.Param{
		"no such axis for Out": {Path: "/w", Shape: p.Shape, In: 0, Out: 2}, "no axis for In": {Path: "/w", Shape: p.Shape, In: -1, Out: 1}, "a scalar": {Path: "/w"},
	} {
		for _, u := range []Unit{Filter, InChannel, Block(2, 2), Head(2), NofM(1, 2, Out)} {
			var bad *Error
			if _, err := u.Of(p); !errors.As(err, &bad) {
				t.Errorf("%s on %s: got %v, want an *Error", u.Name, name, err)
			}
		}
	}
	// Heads on an axis of their own.
	if l := of(t, Head(2), param(6, 2, 5)); l.Count != 2 || l.Size() != 30 || l.Spans(1) || !l.Spans(2) {
		t.Errorf("two heads on an axis of their own: %+v", l)
	}
}

func TestByName(t *testing.T) {
	for _, name := range []string{"2:8", "block 8x4", "head of 12", "3:4 along out"} {
		if u, ok := ByName(name); !ok || u.Name != name {
			t.Errorf("%q: got %q, %t", name, u.Name, ok)
		}
	}
	for _, name := range []string{"", "blocks", "2:", "head of", "2:4 along in"} {
		if u, ok := ByName(name); ok {
			t.Errorf("%q is taken for %q", name, u.Name)
		}
	}
}

func ExampleBlock() {
	p := params.Param{Path: "/fc/dense/weights", Shape: shapes.Make(dtypes.Float32, 784, 300), In: 0, Out: 1}
	layout, err := Block(4, 4).Of(p)
	fmt.Println(layout.Count, "blocks of", layout.Size(), "weights", err)
	_, err = Block(16, 16).Of(p)
	fmt.Println(err)
	// Output:
	// 14700 blocks of 16 weights <nil>
	// unit "block 16x16" on /fc/dense/weights: blocks of [16 16] do not divide its shape [784 300]; choose blocks that do, or leave the parameter out with params.Set.Without
}
