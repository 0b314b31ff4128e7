package lottery

import (
	"context"
	"fmt"
	"math"

	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/experiment"
)

// Line is what lies on the straight line between two networks.
type Line struct {
	Place  []float64 // from 0, the first network, to 1, the second
	Loss   []float64
	Error  []float64 // between 0 and 1
	Copies [2]*Run   // the networks at its ends
	// Barrier is how far the error rises above the mean of that at the ends, at most: the linear interpolation instability of Frankle et al. 2020 (arXiv:1912.05671),
	// who call networks with less than 0.02 stable, or linearly connected. Of networks that failed it is NaN.
	Barrier float64
	// Failed is why there is nothing on the line: one of the copies diverged. nil: there is.
	Failed error
}

// Connect trains the ticket of rung n twice, with two other orders of the examples, and looks at points places of the line between what comes out, their ends included. Each
// copy is a run of its own, as any branch is. Tickets whose copies are connected by a line without a barrier are those that match the dense network.
//
// ds is what error and loss are measured on, such as the task's validation data. Statistics of batch normalisation lie on the line like weights do.
func (t *Trial) Connect(ctx context.Context, n, points int, ds train.Dataset) (Line, error) {
	if points < 3 {
		return Line{}, &experiment.ConfigError{Field: "points", Problem: fmt.Sprintf("got %d", points), Remedy: "give at least 3: both ends and one between them; the paper has 30"}
	}
	if ds == nil {
		return Line{}, &experiment.ConfigError{Field: "ds", Problem: "there are no data to measure on", Remedy: "give a data set, such as Config.Task.Validation"}
	}
	ticket, err := t.Rung(ctx, n)
	if err != nil {
		return Line{}, err
	}
	var line Line
	for i := range line.Copies {
		if line.Copies[i], err = t.branch(ctx, ticket, Ticket, i+1); err != nil {
			return Line{}, err
		}
		if line.Failed == nil {
			line.Failed = line.Copies[i].Failed
		}
	}
	if line.Failed != nil {
		line.Barrier = math.NaN()
		return line, nil
	}
	for i := range points {
		place := float64(i) / float64(points-1)
		network, err := between(line.Copies[0].End, line.Copies[1].End, place)
		if err != nil {
			return Line{}, err
		}
		if err := experiment.Restore(t.store, network); err != nil {
			return Line{}, err
		}
		m, err := t.trainer.Evaluate(ctx, ds)
		if err != nil {
			return Line{}, err
		}
		line.Place, line.Loss, line.Error = append(line.Place, place), append(line.Loss, m.Loss), append(line.Error, 1-m.Accuracy)
	}
	line.Barrier = barrier(line.Error)
	return line, nil
}

// barrier is the largest of the errors less the mean of the first and the last.
func barrier(errors []float64) float64 {
	ends := (errors[0] + errors[len(errors)-1]) / 2
	highest := errors[0]
	for _, e := range errors {
		highest = max(highest, e)
	}
	return highest - ends
}
