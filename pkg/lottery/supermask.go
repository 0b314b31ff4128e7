package lottery

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/mask"
)

// SameSign is the magnitude of a weight that has kept the sign that it started with, and minus the magnitude of one that has not: "large final, same sign" of Zhou et al. 2019
// (arXiv:1905.01067), whose masks are the best of those for networks that are never trained. There all weights of the other sign score 0; here they are ranked too, for the case that
// so many have to be kept.
var SameSign = criterion.Criterion{
	Name: "large final, same sign", Cite: "Zhou et al. 2019, arXiv:1905.01067", Needs: criterion.NeedStart, Pool: criterion.Sum,
	Score: func(in criterion.Inputs) *graph.Node {
		return graph.Mul(in.Weight, graph.Sign(in.Start)) // [in.Param.Shape]
	},
}

// Untrained is what stands in the place of the weights that a mask keeps.
type Untrained int

const (
	// Initial are the weights as the trial's network started with.
	Initial Untrained = iota
	// SignedConstant are their signs, times the deviation of each layer's initial weights. Zhou et al. 2019 find them better than the weights themselves.
	SignedConstant
)

// Supermask measures masks on the network that was never trained, on a data set: whether finding them is a training by itself. Zhou et al. 2019, supermasks. Weights that are
// not pruned, such as biases, are as the network started with.
func (t *Trial) Supermask(ctx context.Context, masks Masks, values Untrained, ds train.Dataset) (experiment.Metrics, error) {
	if values != Initial && values != SignedConstant {
		return experiment.Metrics{}, &experiment.ConfigError{Field: "values", Problem: fmt.Sprintf("got %d", values), Remedy: "give Initial or SignedConstant"}
	}
	if err := experiment.Restore(t.store, t.first); err != nil {
		return experiment.Metrics{}, err
	}
	if err := masks.set(t.store, t.set); err != nil {
		return experiment.Metrics{}, err
	}
	if values == SignedConstant {
		for _, p := range t.set {
			value, err := t.store.GetVariable(p.Path).Value()
			if err != nil {
				return experiment.Metrics{}, err
			}
			if err := value.MutableFlatData(func(flat any) { signed(flat.([]float32)) }); err != nil {
				return experiment.Metrics{}, err
			}
		}
	}
	if err := t.pruner.Enforce(); err != nil {
		return experiment.Metrics{}, err
	}
	return t.trainer.Evaluate(ctx, ds)
}

// signed gives all weights the same size, their standard deviation.
func signed(w []float32) {
	sum, squares := 0.0, 0.0
	for _, x := range w {
		sum, squares = sum+float64(x), squares+float64(x)*float64(x)
	}
	n := float64(len(w))
	deviation := math.Sqrt(max(0, squares/n-sum/n*sum/n))
	for i, x := range w {
		w[i] = float32(math.Copysign(deviation, float64(x)))
	}
}

// between returns the network at a place on the line from one to another: 0 is a, 1 is b. Masks are those of a. Whole numbers do not lie between others: they are a's too.
func between(a, b experiment.Values, place float64) (experiment.Values, error) {
	mixed := experiment.Values{}
	for path, from := range a {
		to := b[path]
		if to == nil || !from.DType().IsFloat() || strings.HasPrefix(path, mask.Scope) {
			mixed[path] = from
			continue
		}
		copied, err := from.LocalClone()
		if err != nil {
			return nil, err
		}
		if err := mix(copied, to, place); err != nil {
			return nil, err
		}
		mixed[path] = copied
	}
	return mixed, nil
}

// mix moves x towards to.
func mix(x, to *tensors.Tensor, place float64) error {
	var err error
	if outer := x.MutableFlatData(func(flat any) {
		err = to.ConstFlatData(func(other any) {
			switch x := flat.(type) {
			case []float32:
				for i, y := range other.([]float32) {
					x[i] = float32((1-place)*float64(x[i]) + place*float64(y))
				}
			case []float64:
				for i, y := range other.([]float64) {
					x[i] = (1-place)*x[i] + place*y
				}
			}
		})
	}); outer != nil {
		return outer
	}
	return err
}
