package params

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
)

// store holds zeros of the given shapes, by path.
func store(t testing.TB, dims map[string][]int) *model.Store {
	t.Helper()
	s := model.NewStore()
	for path, d := range dims {
		if _, err := s.CreateVariable(path, tensors.FromShape(shapes.Make(dtypes.Float32, d...))); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// convnet has two convolutions, a dense layer and the output; the variables of a map are created in another order each time.
func convnet(t testing.TB) *model.Store {
	t.Helper()
	s := store(t, map[string][]int{
		"/conv2/conv/weights":   {3, 3, 8, 16},
		"/conv10/conv/weights":  {3, 3, 16, 4},
		"/conv2/conv/biases":    {16},
		"/fc/dense/weights":     {64, 32},
		"/fc/dense/biases":      {32},
		"/fc/norm/weights":      {32},    // one axis: no layer's kernel
		"/fc/norm/scale":        {2, 32}, // two axes, but another name
		"/output/dense/weights": {32, 10},
		"/frozen/dense/weights": {7, 7},
	})
	s.GetVariable("/frozen/dense/weights").SetTrainable(false)
	return s
}

func TestSelect(t *testing.T) {
	weights := func(path string, in, out int, output bool, dims ...int) Param {
		return Param{Path: path, Shape: shapes.Make(dtypes.Float32, dims...), In: in, Out: out, Output: output}
	}
	want := Set{ // sorted as strings: 10 before 2
		weights("/conv10/conv/weights", 2, 3, false, 3, 3, 16, 4),
		weights("/conv2/conv/weights", 2, 3, false, 3, 3, 8, 16),
		weights("/fc/dense/weights", 0, 1, false, 64, 32),
		weights("/output/dense/weights", 0, 1, true, 32, 10),
	}
	for range 5 { // whatever the order in the store
		if diff := cmp.Diff(want, Select(convnet(t), nil)); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	}
	if got := Select(model.NewStore(), nil); len(got) != 0 {
		t.Errorf("an empty store has %v", got)
	}
}

func TestSelectByWhatIsKept(t *testing.T) {
	got := Select(convnet(t), func(v *model.Variable) bool { return v.Name() == "biases" })
	want := Set{
		{Path: "/conv2/conv/biases", Shape: shapes.Make(dtypes.Float32, 16)}, // In and Out are the only axis
		{Path: "/fc/dense/biases", Shape: shapes.Make(dtypes.Float32, 32)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	scalar := Select(store(t, map[string][]int{"/temperature": {}}), func(*model.Variable) bool { return true })
	if len(scalar) != 1 || scalar[0].In != 0 || scalar[0].Out != 0 || scalar[0].Size() != 1 {
		t.Errorf("a scalar is %+v", scalar)
	}
}

func TestKernels(t *testing.T) {
	s := convnet(t)
	for path, want := range map[string]bool{
		"/fc/dense/weights":     true,
		"/conv2/conv/weights":   true,
		"/fc/dense/biases":      false,
		"/fc/norm/weights":      false,
		"/fc/norm/scale":        false,
		"/frozen/dense/weights": false,
	} {
		if got := Kernels(s.GetVariable(path)); got != want {
			t.Errorf("Kernels(%s) = %t", path, got)
		}
	}
}

func TestOutputByTheNamesOfScopes(t *testing.T) {
	want := map[string]bool{
		"/output/weights":               true,
		"/logits/dense/weights":         true,
		"/model/head/dense/weights":     true,
		"/a/b/classifier/c/weights":     true,
		"/fc/weights":                   false,
		"/output_norm/weights":          false, // part of a name
		"/heads/0/weights":              false,
		"/Output/weights":               false,
		"/attention/multiheads/weights": false,
	}
	dims := map[string][]int{}
	for path := range want {
		dims[path] = []int{2, 2}
	}
	got := map[string]bool{}
	for _, p := range Select(store(t, dims), nil) {
		got[p.Path] = p.Output
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Output by path (-want +got):\n%s", diff)
	}
	// A variable's own name is no scope.
	s := store(t, map[string][]int{"/fc/output": {2, 2}})
	if set := Select(s, func(*model.Variable) bool { return true }); len(set) != 1 || set[0].Output {
		t.Errorf("a variable of the name output: %+v", set)
	}
}

func TestSubsets(t *testing.T) {
	set := Select(convnet(t), nil)
	before := Select(convnet(t), nil)
	all := []string{"/conv10/conv/weights", "/conv2/conv/weights", "/fc/dense/weights", "/output/dense/weights"}
	for _, test := range []struct {
		reason string
		subset func(paths ...string) (Set, error)
		paths  []string
		want   []string
	}{
		{"all but one", set.Without, all[1:2], []string{all[0], all[2], all[3]}},
		{"all but none", set.Without, nil, all},
		{"all but all", set.Without, all, []string{}},
		{"one", set.Only, all[2:3], all[2:3]},
		{"none", set.Only, nil, []string{}},
		{"in the set's order", set.Only, []string{all[3], all[0]}, []string{all[0], all[3]}},
		{"named twice", set.Only, []string{all[1], all[1]}, all[1:2]},
	} {
		got, err := test.subset(test.paths...)
		if err != nil {
			t.Errorf("%s: %v", test.reason, err)
		}
		if diff := cmp.Diff(test.want, got.Paths()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
		if diff := cmp.Diff(before, set); diff != "" {
			t.Fatalf("%s changed the set it was asked of:\n%s", test.reason, diff)
		}
	}
}

func TestMarkOutput(t *testing.T) {
	set := Select(convnet(t), nil)
	outputs := func(s Set) []string {
		var paths []string
		for _, p := range s {
			if p.Output {
				paths = append(paths, p.Path)
			}
		}
		return paths
	}
	for _, test := range []struct{ paths, want []string }{
		{[]string{"/fc/dense/weights"}, []string{"/fc/dense/weights"}}, // and no longer what Select found
		{[]string{"/output/dense/weights", "/conv2/conv/weights"}, []string{"/conv2/conv/weights", "/output/dense/weights"}},
		{nil, nil},
	} {
		got, err := set.MarkOutput(test.paths...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, outputs(got)); diff != "" {
			t.Errorf("MarkOutput%v (-want +got):\n%s", test.paths, diff)
		}
		if diff := cmp.Diff(set.Paths(), got.Paths()); diff != "" {
			t.Errorf("MarkOutput%v gave other parameters:\n%s", test.paths, diff)
		}
		if diff := cmp.Diff([]string{"/output/dense/weights"}, outputs(set)); diff != "" {
			t.Fatalf("MarkOutput%v changed the set it was asked of:\n%s", test.paths, diff)
		}
	}
}

func TestUnknownPaths(t *testing.T) {
	set := Select(convnet(t), nil)
	for name, ask := range map[string]func(paths ...string) (Set, error){"Without": set.Without, "Only": set.Only, "MarkOutput": set.MarkOutput} {
		got, err := ask("/fc/dense/weights", "/conv2/weights", "/nowhere")
		var unknown *UnknownPathError
		if !errors.As(err, &unknown) || got != nil {
			t.Errorf("%s: got %v, %v; want an *UnknownPathError", name, got, err)
			continue
		}
		// The first that is unknown; what shares most with it first, of equal ones in the set's order.
		want := &UnknownPathError{Path: "/conv2/weights", Known: []string{"/conv2/conv/weights", "/conv10/conv/weights", "/fc/dense/weights", "/output/dense/weights"}}
		if diff := cmp.Diff(want, unknown); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		text := `no parameter "/conv2/weights"; there are: /conv2/conv/weights, /conv10/conv/weights, /fc/dense/weights, /output/dense/weights`
		if err.Error() != text {
			t.Errorf("%s:\ngot  %s\nwant %s", name, err, text)
		}
	}
	if diff := cmp.Diff(Select(convnet(t), nil), set); diff != "" {
		t.Errorf("looking for paths sorted the set:\n%s", diff)
	}
	_, err := Set{}.Only("/fc/weights")
	if want := `no parameter "/fc/weights"; there are none at all`; err == nil || err.Error() != want {
		t.Errorf("of an empty set: got %v, want %s", err, want)
	}
}

func TestSizeAndPaths(t *testing.T) {
	set := Select(convnet(t), nil)
	if got, want := set.Size(), 3*3*16*4+3*3*8*16+64*32+32*10; got != want {
		t.Errorf("%d weights, want %d", got, want)
	}
	if got := set[0].Size(); got != 3*3*16*4 {
		t.Errorf("%s has %d weights", set[0].Path, got)
	}
	var none Set
	if none.Size() != 0 || len(none.Paths()) != 0 {
		t.Errorf("an empty set has %d weights and the paths %v", none.Size(), none.Paths())
	}
}

func ExampleSelect() {
	store := model.NewStore()
	for path, dims := range map[string][]int{"/fc1/weights": {784, 300}, "/fc1/biases": {300}, "/output/weights": {300, 10}, "/output/biases": {10}} {
		if _, err := store.CreateVariable(path, tensors.FromShape(shapes.Make(dtypes.Float32, dims...))); err != nil {
			fmt.Println(err)
			return
		}
	}
	set := Select(store, nil) // the weights of layers, without biases
	for _, p := range set {
		fmt.Printf("%-15s %6d weights, %3d inputs, %3d outputs; the network's output: %t\n",
			p.Path, p.Size(), p.Shape.Dimensions[p.In], p.Shape.Dimensions[p.Out], p.Output)
	}
	_, err := set.Without("/fc2/weights")
	fmt.Println(err)
	// Output:
	// /fc1/weights    235200 weights, 784 inputs, 300 outputs; the network's output: false
	// /output/weights   3000 weights, 300 inputs,  10 outputs; the network's output: true
	// no parameter "/fc2/weights"; there are: /fc1/weights, /output/weights
}
