package reconstruct

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
)

// network has a convolution of [2, 1, 2, 1] weights, all of them 1 to 4.
func network(t testing.TB) (*model.Store, params.Param) {
	t.Helper()
	s := model.NewStore()
	if _, err := s.CreateVariable("/conv/weights", tensors.FromFlatDataAndDimensions([]float32{1, 2, 3, 4}, 2, 1, 2, 1)); err != nil {
		t.Fatal(err)
	}
	return s, params.Select(s, nil)[0]
}

func TestApply(t *testing.T) {
	s, p := network(t)
	w, in, out, err := Weights(s, p)
	if err != nil || in != 4 || out != 1 {
		t.Fatalf("%d inputs and %d outputs, %v; want 4 and 1", in, out, err)
	}
	rows, err := ChannelInputs(p, []int{1})
	if err != nil || !slices.Equal(rows, []int{1, 3}) {
		t.Fatalf("channel 1 has the rows %v, %v; want 1 and 3", rows, err)
	}
	_, g := problem(t, 1, 4, 1)
	r, err := LeastSquares(w, in, out, g, rows, LeastSquaresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(s, p, r); err != nil {
		t.Fatal(err)
	}
	got, _, _, err := Weights(s, p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Weights, got); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
	alive, err := mask.Bools(s, p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]bool{true, false, true, false}, alive); diff != "" {
		t.Errorf("mask (-want +got):\n%s", diff)
	}
	// A second round may not revive.
	again, err := OBS(got, in, out, g, OBSConfig{Sparsity: 0.75, Alive: alive})
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(s, p, again); err != nil {
		t.Error(err)
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	fine := func() Result {
		return Result{Weights: []float32{0, 2, 3, 4}, Alive: []bool{false, true, true, true}}
	}
	for name, c := range map[string]struct {
		change func(r *Result, s *model.Store, p *params.Param)
		mask   []bool // before; nil: none
	}{
		"few weights":       {func(r *Result, _ *model.Store, _ *params.Param) { r.Weights = r.Weights[:3] }, nil},
		"a short mask":      {func(r *Result, _ *model.Store, _ *params.Param) { r.Alive = r.Alive[:3] }, nil},
		"the zero value":    {func(r *Result, _ *model.Store, _ *params.Param) { *r = Result{} }, nil},
		"NaN":               {func(r *Result, _ *model.Store, _ *params.Param) { r.Weights[1] = float32(math.NaN()) }, nil},
		"a dead 5":          {func(r *Result, _ *model.Store, _ *params.Param) { r.Weights[0] = 5 }, []bool{true, true, true, false}},
		"a dead -0":         {func(r *Result, _ *model.Store, _ *params.Param) { r.Weights[0] = float32(math.Copysign(0, -1)) }, nil},
		"a revival":         {func(*Result, *model.Store, *params.Param) {}, []bool{true, true, true, false}},
		"no such parameter": {func(_ *Result, _ *model.Store, p *params.Param) { p.Path = "/fc/weights" }, nil},
		"another shape":     {func(_ *Result, _ *model.Store, p *params.Param) { p.Shape.Dimensions = []int{4, 1} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := network(t)
			if c.mask != nil {
				if err := mask.Set(s, p, c.mask); err != nil {
					t.Fatal(err)
				}
			}
			wanted, r := p, fine()
			c.change(&r, s, &wanted)
			err := Apply(s, wanted, r)
			var typed *Error
			if !errors.As(err, &typed) {
				t.Errorf("%v, want an *Error", err)
			}
			got, _, _, err := Weights(s, p)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]float32{1, 2, 3, 4}, got); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
			if had := s.GetVariable(mask.Path(p)) != nil; had != (c.mask != nil) {
				t.Errorf("has a mask: %t", had)
			}
			if c.mask != nil {
				alive, err := mask.Bools(s, p)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.mask, alive); diff != "" {
					t.Errorf("mask (-want +got):\n%s", diff)
				}
			}
		})
	}
	s, p := network(t)
	if err := Apply(s, p, fine()); err != nil {
		t.Errorf("what the others are changed from: %v", err)
	}
	// A mask of another network under this name: the weights stay too.
	s, p = network(t)
	if _, err := s.CreateVariable(mask.Path(p), tensors.FromScalarAndDimensions(true, 3)); err != nil {
		t.Fatal(err)
	}
	var shape *mask.ShapeError
	if err := Apply(s, p, fine()); !errors.As(err, &shape) {
		t.Errorf("%v, want a *mask.ShapeError", err)
	}
	if got, _, _, err := Weights(s, p); err != nil || got[0] != 1 {
		t.Errorf("weights %v, %v; want no change", got, err)
	}
}

func TestNoMatrix(t *testing.T) {
	s, p := network(t)
	p.In, p.Out = 3, 2
	var typed *Error
	if _, _, _, err := Weights(s, p); !errors.As(err, &typed) {
		t.Errorf("axes the other way round: %v, want an *Error", err)
	}
	if _, err := ChannelInputs(p, nil); !errors.As(err, &typed) {
		t.Errorf("axes the other way round: %v, want an *Error", err)
	}
	_, p = network(t)
	for _, channel := range []int{-1, 2} {
		if _, err := ChannelInputs(p, []int{channel}); !errors.As(err, &typed) {
			t.Errorf("channel %d: %v, want an *Error", channel, err)
		}
	}
	if _, _, _, err := Weights(nil, p); !errors.As(err, &typed) {
		t.Errorf("no store: %v, want an *Error", err)
	}
}
