package trace

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
)

func open(t *testing.T) compute.Backend {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGeneratedFromTheInterface(t *testing.T) {
	file := filepath.Join(t.TempDir(), "operations.go")
	if output, err := exec.Command("go", "run", "./internal/gen", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("operations.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("operations.go is not what gen writes: run go generate ./pkg/trace (-want +got)\n%s", diff)
	}
}

// network has a dense layer, batch normalisation, and a node that nothing depends on.
func network(scope *model.Scope, inputs []*graph.Node) []*graph.Node {
	x := layers.Dense(scope.In("fc"), inputs[0], true, 3) // [batch, 2] -> [batch, 3]
	graph.Sin(x)
	return []*graph.Node{norm.BatchNorm(scope.In("bn"), x, -1).Done()}
}

func types(t *Trace) (names []string) {
	for _, op := range t.Ops {
		names = append(names, op.Type)
	}
	return names
}

func TestRecord(t *testing.T) {
	b, store := open(t), model.NewStore()
	inference, err := Record(b, store, network, Config{}, shapes.Make(dtypes.Float32, 5, 2))
	if err != nil {
		t.Fatal(err)
	}
	if store.NumVariables() != 0 {
		t.Errorf("recording left %d variables in the store", store.NumVariables())
	}
	want := []string{"/bn/batch_normalization/mean", "/bn/batch_normalization/offset", "/bn/batch_normalization/scale", "/bn/batch_normalization/variance", "/fc/dense/biases", "/fc/dense/weights"}
	if diff := cmp.Diff(want, inference.Missing[len(inference.Missing)-len(want):]); diff != "" {
		t.Errorf("missing variables (-want +got)\n%s", diff)
	}
	text := strings.Join(types(inference), " ")
	if strings.Contains(text, "Sin") || strings.Contains(text, "Fused") || !strings.Contains(text, "DotGeneral") || !strings.Contains(text, "BatchNormForInference") {
		t.Errorf("operations: %s", text)
	}
	if len(inference.Updates) != 0 {
		t.Errorf("inference updates %v", inference.Updates)
	}
	training, err := Record(b, store, network, Config{Training: true}, shapes.Make(dtypes.Float32, 5, 2))
	if err != nil {
		t.Fatal(err)
	}
	var updated []string
	for _, u := range training.Updates {
		updated = append(updated, u.Path)
	}
	want = []string{"/bn/batch_normalization/avg_weight", "/bn/batch_normalization/mean", "/bn/batch_normalization/variance"}
	if diff := cmp.Diff(want, updated); diff != "" {
		t.Errorf("updates in training (-want +got)\n%s", diff)
	}
	for _, op := range training.Ops {
		if op.Node() == nil || Of(op.Node())[0].Op != op {
			t.Errorf("%s has the node %v", op.Type, op.Node())
		}
	}
	again, err := Record(b, store, network, Config{}, shapes.Make(dtypes.Float32, 5, 2))
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest() != inference.Digest() {
		t.Error("the same network has two digests")
	}
	if training.Digest() == inference.Digest() {
		t.Error("two phases have one digest")
	}
}

func TestAttributesAreCopies(t *testing.T) {
	axes := []int{1}
	r, err := Record(open(t), model.NewStore(), func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		x := graph.ReduceSum(in[0], axes...)
		axes[0] = 0
		return []*graph.Node{graph.Mul(x, graph.Const(x.Graph(), []float32{1, 2}))}
	}, Config{}, shapes.Make(dtypes.Float32, 2, 4))
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range r.Ops {
		switch op.Type {
		case "ReduceSum":
			if diff := cmp.Diff([]int{1}, op.Attributes.Ints("axes")); diff != "" {
				t.Errorf("axes (-want +got)\n%s", diff)
			}
		case "Constant":
			if diff := cmp.Diff([]float32{1, 2}, op.Attributes["flat"]); diff != "" {
				t.Errorf("constant (-want +got)\n%s", diff)
			}
		}
	}
}

// What the functions of an operation take from outside counts as its input: nothing of it may be cut unseen.
func TestFunctionsCapture(t *testing.T) {
	inGo, err := compute.NewWithConfig("go") // XLA's functions take nothing from outside
	if err != nil {
		t.Fatal(err)
	}
	r, err := Record(inGo, model.NewStore(), func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		x := in[0]
		w := scope.VariableWithShape("w", shapes.Make(dtypes.Float32, 3)).NodeValue(x.Graph())
		g := x.Graph()
		plus := func(y *graph.Node) *graph.Function {
			return graph.NewClosure(g, func(g *graph.Graph) []*graph.Node { return []*graph.Node{graph.Add(graph.Iota(g, y.Shape(), 0), y)} })
		}
		yes, no := plus(w), plus(x)
		return graph.If(graph.GreaterThan(graph.ReduceAllSum(x), graph.ScalarZero(g, dtypes.Float32)), yes, no)
	}, Config{}, shapes.Make(dtypes.Float32, 3))
	if err != nil {
		t.Fatal(err)
	}
	last := r.Ops[len(r.Ops)-1]
	captured := false
	for _, in := range last.Inputs {
		captured = captured || in.Variable() == "/w"
	}
	if last.Type != "If" || !captured {
		t.Errorf("%s does not have the variable among its inputs:\n%s", last.Type, r)
	}
}

// Importers build and run graphs of their own while the model function builds.
func TestGraphsInsideRun(t *testing.T) {
	r, err := Record(open(t), model.NewStore(), func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		two, err := graph.CallOnce(in[0].Graph().Backend(), func(x *graph.Node) *graph.Node { return graph.AddScalar(x, 1) }, tensors.FromValue(float32(1)))
		if err != nil {
			panic(err)
		}
		return []*graph.Node{graph.MulScalar(in[0], float64(tensors.ToScalar[float32](two)))}
	}, Config{}, shapes.Make(dtypes.Float32, 3))
	if err != nil {
		t.Fatal(err)
	}
	if got := types(r); got[len(got)-1] != "Mul" {
		t.Errorf("recorded %v", got)
	}
}

// What Finish returns is recorded, and it sees the variables that were created, whose first values come from the initialiser that is given.
func TestFinish(t *testing.T) {
	var created []string
	r, err := Record(open(t), model.NewStore(), func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		w := scope.VariableWithShape("w", shapes.Make(dtypes.Float32, 3))
		graph.Sin(w.NodeValue(in[0].Graph()))
		model.SetGraphParam(in[0].Graph(), "/left", graph.Cos(in[0]))
		return in
	}, Config{
		Initializer: graph.Ones,
		Finish: func(g *graph.Graph, store *model.Store) ([]*graph.Node, error) {
			for v := range store.IterVariables() {
				created = append(created, v.Path())
			}
			if err := store.InitializeVariables(open(t), nil); err != nil {
				return nil, err
			}
			if diff := cmp.Diff([]float32{1, 1, 1}, store.GetVariable("/w").MustValue().Value()); diff != "" {
				t.Errorf("first values (-want +got)\n%s", diff)
			}
			left, _ := model.GetGraphParam(g, "/left")
			return []*graph.Node{left.(*graph.Node)}, nil
		},
	}, shapes.Make(dtypes.Float32, 3))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Parameter", "Cos"}, types(r)); diff != "" {
		t.Errorf("operations (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/w"}, created); diff != "" || r.Store.NumVariables() != 0 {
		t.Errorf("created %v, left %d", created, r.Store.NumVariables())
	}
}

func TestErrors(t *testing.T) {
	b, shape := open(t), shapes.Make(dtypes.Float32, 3)
	for name, c := range map[string]struct {
		fn     ModelFn
		inputs []shapes.Shape
		want   string
	}{
		"panic":     {func(*model.Scope, []*graph.Node) []*graph.Node { panic("no such layer") }, []shapes.Shape{shape}, "no such layer"},
		"no output": {func(*model.Scope, []*graph.Node) []*graph.Node { return nil }, []shapes.Shape{shape}, "no output"},
		"no input":  {network, nil, "give its shape"},
		"nil":       {nil, []shapes.Shape{shape}, "must not be nil"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Record(b, model.NewStore(), c.fn, Config{}, c.inputs...)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected a *trace.Error with %q", err, c.want)
			}
		})
	}
}
