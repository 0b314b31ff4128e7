package memory

import (
	"strconv"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// Parts is the contents of a data set cut in three.
type Parts struct{ Train, Validation, Test Contents }

// Splits is a data set cut in three: Train is learnt from, Validation chosen by, and Test read once, at the end.
type Splits struct{ Train, Validation, Test *Dataset }

// Open returns the data sets of p: the training set in batches of batch (0: DefaultBatch), shuffled by seed, the others for
// evaluation, in batches of EvaluationBatch. The error is a *fault.Error of kind ErrConfig or ErrFormat.
func (p Parts) Open(batch int, seed int64) (*Splits, error) {
	if batch < 0 {
		return nil, &fault.Error{Kind: fault.ErrConfig, File: p.Train.Name, Expected: "a Batch of 1 or more, or 0 for the default",
			Came: strconv.Itoa(batch)}
	}
	var s Splits
	for _, part := range []struct {
		from  Contents
		to    **Dataset
		batch int
	}{{p.Train, &s.Train, batch}, {p.Validation, &s.Validation, 0}, {p.Test, &s.Test, 0}} {
		var err error
		if *part.to, err = New(part.from, part.to == &s.Train, part.batch, seed); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

// HoldOut cuts the last n examples of c off as its validation part. The two share the arrays of c.
func HoldOut(c Contents, n int) (trained, validation Contents) {
	cut := len(c.Labels) - n
	at := cut * c.Height * c.Width * c.Channels
	trained, validation = c, c
	trained.Part, validation.Part = "train", "validation"
	trained.Inputs, trained.Labels = c.Inputs[:at:at], c.Labels[:cut:cut]
	validation.Inputs, validation.Labels = c.Inputs[at:], c.Labels[cut:]
	return trained, validation
}
