package experiment

import (
	"fmt"

	"github.com/gomlx/gomlx/ml/train/optimizer"
)

// Spec is a training that can be written down and repeated elsewhere: what Training says, by names. The zero value trains for one epoch with Adam.
type Spec struct {
	Epochs       int     `json:"epochs,omitempty"` // or Steps; default: one epoch
	Steps        int     `json:"steps,omitempty"`
	Optimizer    string  `json:"optimizer,omitempty"`    // "adam" (default) or "sgd"
	LearningRate float64 `json:"learningRate,omitempty"` // default: 1e-3 for Adam, 0.1 for SGD
	Momentum     float64 `json:"momentum,omitempty"`     // of SGD
	WeightDecay  float64 `json:"weightDecay,omitempty"`
	Rate         string  `json:"rate,omitempty"` // "" (constant), "cosine" or "linear": CosineDecay and LinearDecay
}

// Training returns the training that a spec describes. A name that is not known is a *ConfigError.
func (s Spec) Training() (Training, error) {
	t := Training{Epochs: s.Epochs, Steps: s.Steps}
	if s.LearningRate < 0 || s.WeightDecay < 0 || s.Momentum < 0 {
		return t, &ConfigError{"Spec", fmt.Sprintf("a rate is negative: %+v", s), "give 0 for the default, or a positive number"}
	}
	switch s.Optimizer {
	case "", "adam":
		rate := s.LearningRate
		if rate == 0 {
			rate = 1e-3
		}
		t.Optimizer = optimizer.Adam().LearningRate(rate).WeightDecay(s.WeightDecay).Done()
	case "sgd":
		t.Optimizer = &SGD{LearningRate: s.LearningRate, Momentum: s.Momentum, WeightDecay: s.WeightDecay}
	default:
		return t, &ConfigError{"Spec.Optimizer", fmt.Sprintf("%q is not known", s.Optimizer), `use "adam" or "sgd"`}
	}
	switch s.Rate {
	case "":
	case "cosine":
		t.Rate = CosineDecay
	case "linear":
		t.Rate = LinearDecay
	default:
		return t, &ConfigError{"Spec.Rate", fmt.Sprintf("%q is not known", s.Rate), `use "", "cosine" or "linear"`}
	}
	return t, nil
}
