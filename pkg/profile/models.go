package profile

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Candidate is a network to be held against others.
type Candidate struct {
	Name   string
	Store  *model.Store
	Model  trace.ModelFn
	Inputs []shapes.Shape
}

// Comparison is what several networks cost. Profiles[i] and Timings[i] belong to the i-th candidate; the ratios of Timings are to the first.
type Comparison struct {
	Profiles []Profile
	Timings  []Timing
}

// CompareModels counts what networks cost, and measures them against the first: in turn, in shuffled order within each round, with an interval for each ratio (see Compare), on values that
// are made up, so that no variable needs one. Give the network before first, then those after.
//
// Errors: ErrNoContenders, *BuildError, and those of Compare.
func CompareModels(ctx context.Context, b compute.Backend, candidates []Candidate, cfg CompareConfig) (Comparison, error) {
	if len(candidates) == 0 {
		return Comparison{}, fmt.Errorf("profile.CompareModels: %w", ErrNoContenders)
	}
	var result Comparison
	var contenders []Contender
	for _, candidate := range candidates {
		p, c, err := count(b, candidate.Store, candidate.Model, candidate.Inputs)
		var failed *BuildError
		if errors.As(err, &failed) {
			return Comparison{}, &BuildError{failed.Inputs, fmt.Errorf("%s: %w", candidate.Name, failed.Err)}
		}
		whole, err := c.piece(func(*trace.Op) bool { return true })
		if err != nil {
			return Comparison{}, &BuildError{candidate.Inputs, fmt.Errorf("%s: %w", candidate.Name, err)}
		}
		contender, release, err := whole.contender(b, candidate.Name)
		if err != nil {
			return Comparison{}, &BuildError{candidate.Inputs, err}
		}
		defer release()
		result.Profiles, contenders = append(result.Profiles, p), append(contenders, contender)
	}
	var err error
	if result.Timings, err = Compare(ctx, contenders, cfg); err != nil {
		return Comparison{}, err
	}
	for i, t := range result.Timings {
		result.Profiles[i].Latency = t
	}
	return result, nil
}

// Table returns a row for each network.
func (c Comparison) Table() report.Table {
	t := report.Table{Columns: []report.Column{{Name: "network"}, {Name: "parameters"}, {Name: "not zero"}, {Name: "MACs"}, {Name: "size", Unit: "MB", Format: "%.3f"},
		{Name: "activations", Unit: "MB", Format: "%.3f"}, {Name: "median", Unit: "ms", Format: "%.3f"}, {Name: "time over the first", Format: "%.2f"}, {Name: "95% interval"}}}
	rounds := 0
	for i, p := range c.Profiles {
		x := c.Timings[i]
		rounds = x.Rounds
		t.Rows = append(t.Rows, []any{x.Name, report.Count(p.Params()), report.Count(p.NonZero()), report.Count(p.MACs()), megabytes(p.Bytes()), megabytes(p.Activations.Peak),
			milliseconds(x.P50), x.Ratio, fmt.Sprintf("%.2f to %.2f", x.Low, x.High)})
	}
	t.Caption = fmt.Sprintf("%d rounds, in which all are timed in shuffled order; the ratio is the median over the rounds. Zeros save no time: only what is gone does.", rounds)
	return t
}
