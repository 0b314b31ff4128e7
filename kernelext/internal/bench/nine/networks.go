package main

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/experiment"
)

// family is a network whose hidden layers may have any widths, and how it is made nine times faster.
type family struct {
	name, what string
	model      func(widths []int) experiment.ModelFn
	groups     []string // a variable of each hidden layer, by which surgery knows it; one for each width
	teacher    rung
	rungs      []rung          // what it is cut to, one after the other; the last is the network that is to be fast
	scratch    experiment.Spec // of the last rung's network without its history, and of denseLong: as many steps as teacher and rungs together have
	rates      []float64       // learning rates of the small networks: each is made with all, and the one that is best on validation data is kept; dense networks have that of their spec
	widths     [][]int         // that -widths times besides: where the rungs come from
}

// rung is a network on the way, with the training after it was cut.
type rung struct {
	widths []int
	spec   experiment.Spec
}

const classes = 10

func input(batch int) shapes.Shape { return shapes.Make(dtypes.Float32, batch, 28, 28, 1) }

func dense(scope *model.Scope, name string, x *graph.Node, out int) *graph.Node {
	return layers.Dense(scope.At("%s", name), x, true, out)
}

func flat(x *graph.Node) *graph.Node {
	return graph.Reshape(x, x.Shape().Dimensions[0], -1)
}

// mlp is 784-a-b-10.
func mlp(widths []int) experiment.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		x = flat(x)                                            // [batch, 28, 28, 1] -> [batch, 784]
		x = activation.Relu(dense(scope, "fc1", x, widths[0])) // -> [batch, a]
		x = activation.Relu(dense(scope, "fc2", x, widths[1])) // -> [batch, b]
		return dense(scope, "output", x, classes)              // -> [batch, 10]
	}
}

// lenet is LeNet-5 with a and b channels, c units, and ReLU after each layer.
func lenet(widths []int) experiment.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		conv := func(name string, channels int) {
			x = layers.Convolution(scope.At("%s", name), x).Channels(channels).KernelSize(5).NoPadding().Done()
			x = activation.Relu(pool(scope, x))
		}
		conv("conv1", widths[0])                                     // [batch, 28, 28, 1] -> [batch, 12, 12, a]
		conv("conv2", widths[1])                                     // -> [batch, 4, 4, b]
		x = activation.Relu(dense(scope, "fc1", flat(x), widths[2])) // [batch, 16·b] -> [batch, c]
		return dense(scope, "output", x, classes)
	}
}

// pool takes the largest of each square of 2x2: for inference by the operation that runtimes know, in training by one whose gradient is faster (see nets.LeNet5).
func pool(scope *model.Scope, x *graph.Node) *graph.Node {
	if !scope.IsTraining(x.Graph()) {
		return graph.MaxPool(x).Window(2).Done()
	}
	d := x.Shape().Dimensions
	return graph.ReduceMax(graph.Reshape(x, d[0], d[1]/2, 2, d[2]/2, 2, d[3]), 2, 4)
}

func adam(epochs int) experiment.Spec {
	return experiment.Spec{Epochs: epochs, LearningRate: 1e-3, Rate: "cosine"}
}

// families are the two networks. The widths of the last rungs are of those that -widths times, with a margin above nine, because two quiet cores help the dense network more; that they
// keep their accuracy is seen on validation data. The small LeNets, and the dense one that trains as long, have two learning rates to choose from, because which is better depends on what they start
// from and learn from: with one of the two for all, the recipe or a control would be at a disadvantage.
func families() []family {
	return []family{{
		name: "mlp", what: "784-1200-1200-10", model: mlp, groups: []string{"/fc1/", "/fc2/"},
		teacher: rung{[]int{1200, 1200}, adam(12)},
		rungs:   []rung{{[]int{512, 256}, adam(4)}, {[]int{256, 128}, adam(4)}, {[]int{128, 64}, adam(10)}},
		scratch: adam(30),
		rates:   []float64{1e-3},
		widths:  [][]int{{256, 128}, {192, 96}, {160, 80}, {128, 64}, {96, 48}, {100, 50}},
	}, {
		name: "lenet", what: "LeNet-5, wide: 32-128-512", model: lenet, groups: []string{"/conv1/", "/conv2/", "/fc1/"},
		teacher: rung{[]int{32, 128, 512}, adam(11)},
		rungs:   []rung{{[]int{8, 24, 64}, adam(4)}, {[]int{4, 16, 48}, adam(13)}},
		scratch: adam(28),
		rates:   []float64{1e-3, 3e-3},
		widths:  [][]int{{8, 24, 64}, {8, 16, 48}, {6, 16, 48}, {4, 16, 48}, {4, 16, 45}, {4, 8, 32}},
	}}
}

// fast is a family for a try: a few steps, a small teacher.
func (f family) fast() family {
	steps := func(n int) experiment.Spec { return experiment.Spec{Steps: n, LearningRate: 2e-3, Rate: "cosine"} }
	half := append([]int(nil), f.teacher.widths...)
	for i := range half {
		half[i] /= 4
	}
	f.teacher = rung{half, steps(60)}
	last := f.rungs[len(f.rungs)-1]
	f.rungs = []rung{{last.widths, steps(40)}}
	f.scratch, f.rates, f.widths = steps(60), []float64{2e-3}, f.widths[:1]
	return f
}

func find(name string) (family, error) {
	var known []string
	for _, f := range families() {
		if f.name == name {
			return f, nil
		}
		known = append(known, f.name)
	}
	return family{}, fmt.Errorf("there is no network %q; there are %v", name, known)
}
