package carry

import (
	"reflect"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/budget"
	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/unit"
)

func kind[T any](t *testing.T) Kind {
	t.Helper()
	for _, k := range Kinds() {
		if k.Type == reflect.TypeFor[T]() {
			return k
		}
	}
	t.Fatalf("no kind for %v", reflect.TypeFor[T]())
	return Kind{}
}

// carry saves a value and loads it, and checks that its digest is that of before, and another after change.
func carry[T any](t *testing.T, value *T, change func(*T), refs ...any) *T {
	t.Helper()
	k := kind[T](t)
	digest := func(v *T) string {
		t.Helper()
		d, err := k.Digest(v)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before, dir := digest(value), t.TempDir()
	if err := k.Save(value, dir); err != nil {
		t.Fatal(err)
	}
	loaded, err := k.Load(dir, refs)
	if err != nil {
		t.Fatal(err)
	}
	got := loaded.(*T)
	if after := digest(got); after != before {
		t.Errorf("digest %s before and %s after", before, after)
	}
	if change != nil {
		change(value)
		if digest(value) == before {
			t.Error("its digest does not change with it")
		}
	}
	return got
}

func network(t *testing.T) *model.Store {
	t.Helper()
	s := model.NewStore()
	for _, v := range []struct {
		path  string
		value *tensors.Tensor
	}{
		{"/fc2/weights", tensors.FromValue([][]float32{{1, -2}, {3, 4}, {5, 6}})},
		{"/fc1/weights", tensors.FromValue([][]float32{{0.5, 0.25, -1}, {2, 1, 0}})},
		{"/step", tensors.FromScalar(int64(7))},
		{"/pruning/mask/fc1/weights", tensors.FromValue([][]bool{{true, false, true}, {true, true, false}})},
	} {
		made, err := s.CreateVariable(v.path, v.value)
		if err != nil {
			t.Fatal(err)
		}
		made.SetTrainable(strings.HasSuffix(v.path, "weights") && !strings.HasPrefix(v.path, "/pruning"))
	}
	s.SetParam("/learning_rate", 0.01)
	s.SetParam("/layers", 3)
	return s
}

func TestStore(t *testing.T) {
	s := network(t)
	got := carry(t, s, func(s *model.Store) {
		if err := s.GetVariable("/step").SetValue(tensors.FromScalar(int64(8))); err != nil {
			t.Fatal(err)
		}
	})
	type variable struct {
		Path, Shape string
		Trainable   bool
		Value       any
	}
	list := func(s *model.Store) (all []variable) {
		for v := range s.IterVariables() {
			value, err := v.Value()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, variable{v.Path(), v.Shape().String(), v.Trainable, value.Value()})
		}
		return all
	}
	if diff := cmp.Diff(list(network(t)), list(got)); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	want, found := map[string]any{"/learning_rate": 0.01, "/layers": 3}, map[string]any{}
	for path, value := range got.IterParams() {
		found[path] = value
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("hyperparameters (-want +got):\n%s", diff)
	}
}

func TestStoreThatCannotBeKept(t *testing.T) {
	s := network(t)
	s.SetParam("/function", func() {})
	if _, err := kind[model.Store](t).Digest(s); err == nil || !strings.Contains(err.Error(), "/function") {
		t.Errorf("error %v, want one that names the hyperparameter", err)
	}
}

func TestTensor(t *testing.T) {
	for _, value := range []any{[]float32{1, 2, 3}, [][]int64{{1}, {2}}, []bool{true, false, true}, float64(3), []uint8{1, 2}} {
		tensor, err := tensors.FromAnyValue(value)
		if err != nil {
			t.Fatal(err)
		}
		got := carry(t, tensor, nil)
		if diff := cmp.Diff(value, got.Value()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	carry(t, tensors.FromValue([]float32{1, 2}), func(v *tensors.Tensor) {
		tensors.MustMutableFlatData(v, func(flat []float32) { flat[1] = 3 })
	})
}

func TestPruner(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := network(t)
	set := params.Select(s, nil)
	if len(set) != 2 {
		t.Fatalf("parameters %v, want 2", set.Paths())
	}
	for _, recipe := range []prune.Recipe{{}, {Criterion: criterion.LAMP, Seed: 3}, {Unit: unit.Filter, MinUnits: 1, KeepMin: true}} {
		given := set
		if recipe.Unit.Structured {
			if given, err = set.MarkOutput("/fc2/weights"); err != nil {
				t.Fatal(err)
			}
		}
		p, err := prune.New(b, s, given, recipe)
		if err != nil {
			t.Fatal(err)
		}
		if refs := kind[prune.Pruner](t).Refs(p); len(refs) != 1 || refs[0] != any(s) {
			t.Fatalf("it refers to %v, want its store", refs)
		}
		got := carry(t, p, nil, any(s))
		if got.Store() != s || got.Recipe().String() != p.Recipe().String() {
			t.Errorf("got a pruner of %v", got.Recipe())
		}
		if diff := cmp.Diff(p.Params().Paths(), got.Params().Paths()); diff != "" {
			t.Errorf("parameters (-want +got):\n%s", diff)
		}
	}
	p, err := prune.New(b, s, set, prune.Recipe{})
	if err != nil {
		t.Fatal(err)
	}
	got := carry(t, p, nil, any(s))
	stats, err := got.Prune(0.5, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sparsity := mask.Sparsity(stats); sparsity != 0.5 {
		t.Errorf("the pruner that was carried left a sparsity of %g, want 0.5", sparsity)
	}
}

func TestPrunerOfOnesOwnCriterion(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := network(t)
	mine := criterion.Criterion{Name: "magnitude", Score: func(in criterion.Inputs) *graph.Node { return in.Weight }}
	p, err := prune.New(b, s, params.Select(s, nil), prune.Recipe{Criterion: mine})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kind[prune.Pruner](t).Digest(p); err == nil || !strings.Contains(err.Error(), "can't be kept") {
		t.Errorf("error %v, want one that says that it can't be kept", err)
	}
}

func TestCodes(t *testing.T) {
	code := func(v any) Code {
		for _, c := range Codes() {
			if c.Type == reflect.TypeOf(v).Elem() {
				return c
			}
		}
		t.Fatalf("no code for %T", v)
		return Code{}
	}
	for _, c := range criterion.All() {
		var got criterion.Criterion
		data, err := code(&c).Marshal(&c)
		if err == nil {
			err = code(&c).Unmarshal(data, &got)
		}
		if err != nil || got.Name != c.Name || got.Score == nil {
			t.Errorf("criterion %s: %q, %v", c.Name, got.Name, err)
		}
	}
	for _, u := range append(unit.All(), unit.Block(8, 8), unit.NofM(2, 8, unit.In)) {
		var got unit.Unit
		data, err := code(&u).Marshal(&u)
		if err == nil {
			err = code(&u).Unmarshal(data, &got)
		}
		if err != nil || got.Name != u.Name {
			t.Errorf("unit %s: %q, %v", u.Name, got.Name, err)
		}
	}
	for _, b := range budget.All() {
		var got budget.Budget
		data, err := code(&b).Marshal(&b)
		if err == nil {
			err = code(&b).Unmarshal(data, &got)
		}
		if err != nil || got.Name != b.Name || got.Divide == nil {
			t.Errorf("budget %s: %q, %v", b.Name, got.Name, err)
		}
	}
	for name, change := range map[string]func(c *criterion.Criterion){
		"another name":  func(c *criterion.Criterion) { c.Name = "mine" },
		"another score": func(c *criterion.Criterion) { c.Score = func(in criterion.Inputs) *graph.Node { return in.Weight } },
		"more rounds":   func(c *criterion.Criterion) { c.Rounds = 7 },
		"another pool":  func(c *criterion.Criterion) { c.Pool = criterion.L2 },
	} {
		c := criterion.SNIP
		change(&c)
		if _, err := code(&c).Marshal(&c); err == nil {
			t.Errorf("%s: it was taken for the library's", name)
		}
	}
	if err := code(new(unit.Unit)).Unmarshal([]byte("no such unit"), new(unit.Unit)); err == nil {
		t.Error("an unknown unit was found")
	}
}
