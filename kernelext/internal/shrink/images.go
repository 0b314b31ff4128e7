package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/datasets/imagefolder"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// images are the examples, and how they are brought to the model's form.
type images struct {
	*imagefolder.Data
	channelsFirst bool
	mean, std     []float64
}

// openImages opens the folder of images in the size that the model takes.
func (j *job) openImages() (*images, error) {
	refuse := func(expected, came, remedy string) error {
		return fmt.Errorf("--data: expected %s, came %s; %s", expected, came, remedy)
	}
	if len(j.inputs) != 1 || j.inputs[0].Rank() != 4 || j.inputs[0].DType != dtypes.Float32 {
		return nil, refuse("a model with one input of images, float32 [batch, channels, height, width]", fmt.Sprint(j.inputs), "leave --data out")
	}
	if j.large.FreeBatch() == "" {
		return nil, refuse("a model that takes batches of any size", "one for batches of "+fmt.Sprint(j.inputs[0].Dimensions[0]),
			"export it with a free first axis (torch.onnx.export: dynamic_axes or dynamic_shapes)")
	}
	d := j.inputs[0].Dimensions
	i := &images{mean: j.mean, std: j.std}
	height, width, channels := d[1], d[2], d[3]
	if i.channelsFirst = d[1] == 1 || d[1] == 3; i.channelsFirst {
		channels, height, width = d[1], d[2], d[3]
	}
	if channels != 1 && channels != 3 || height != width {
		return nil, refuse("square images of 1 or 3 channels", fmt.Sprint(d), "leave --data out")
	}
	for name, list := range map[string][]float64{"--mean": j.mean, "--std": j.std} {
		if n := len(list); n != 0 && n != 1 && n != channels {
			return nil, refuse(fmt.Sprintf("as many numbers for %s as the images have channels, %d", name, channels), fmt.Sprint(n), "give one for each channel, or one for all")
		}
	}
	var err error
	i.Data, err = imagefolder.Open(imagefolder.Config{Path: j.data, Size: height, Channels: channels, Batch: j.batch, Seed: j.seed,
		Warn: func(err error) { j.say("note: %v", err) }})
	if err != nil {
		return nil, err
	}
	j.say("%s: %d images to learn from, %d to judge by, %d that are left for a test of yours; %d classes", j.data, i.Train.Len(), i.Validation.Len(), i.Test.Len(), i.Train.Classes())
	return i, nil
}

// prepared brings a batch of images [batch, height, width, channels], from 0 to 1, to the model's form.
func (i *images) prepared(x *graph.Node) *graph.Node {
	form := func(list []float64) *graph.Node {
		values := make([]float32, x.Shape().Dimensions[3])
		for c := range values {
			values[c] = float32(list[c%len(list)])
		}
		return graph.Const(x.Graph(), [][][][]float32{{{values}}}) // [1, 1, 1, channels]
	}
	if len(i.mean) > 0 {
		x = graph.Sub(x, form(i.mean))
	}
	if len(i.std) > 0 {
		x = graph.Div(x, form(i.std))
	}
	if i.channelsFirst {
		x = graph.TransposeAllAxes(x, 0, 3, 1, 2)
	}
	return x
}

// fed is a model function that takes images as the data set has them, and returns the first output.
func (i *images) fed(fn trace.ModelFn) func(*model.Scope, *graph.Node) *graph.Node {
	return func(scope *model.Scope, x *graph.Node) *graph.Node { return fn(scope, []*graph.Node{i.prepared(x)})[0] }
}

// first returns the first images that are held out, in the model's form; those to learn from, if none are.
func (i *images) first(b compute.Backend, n int) (*tensors.Tensor, error) {
	from := i.Validation
	if from.Len() < n {
		from = i.Train.Shuffled(false)
	}
	if from.Len() < n {
		return nil, fmt.Errorf("--data: expected at least %d images, came %d", n, from.Len())
	}
	for batch, err := range from.Take(n).WithBatch(n).Iter() {
		if err != nil {
			return nil, err
		}
		return graph.CallOnce(b, i.prepared, batch.Inputs[0])
	}
	return nil, fmt.Errorf("--data: no images")
}

// fits tells whether the classes of the images are those of the model, by their number.
func (i *images) fits(outputs []int) bool {
	return len(outputs) == 2 && slices.Equal(outputs[1:], []int{i.Train.Classes()})
}

// mapping says which folder is held for which output of the model: nothing in a model tells.
func (i *images) mapping() string {
	const shown = 12
	var parts []string
	for k, name := range i.Train.ClassNames() {
		if k == shown {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, fmt.Sprintf("%d %s", k, name))
	}
	return strings.Join(parts, ", ")
}
