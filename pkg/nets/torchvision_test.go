package nets

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// formula fills the arrays of testdata/torchvision/torchvision_logits.py with shift + scale · a number from -1 to 1.
func formula(seed, n int, shift, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(shift + scale*(float64((i*48271+seed*7919)%65521)/32760.5-1))
	}
	return x
}

// parameter is torchvision's parameter of a name and a shape, in its order.
func parameter(name string, shape ...int) []float32 {
	seed, n := 0, 1
	for _, b := range []byte(name) {
		seed += int(b)
	}
	for _, d := range shape {
		n *= d
	}
	switch {
	case strings.HasSuffix(name, "running_var"):
		return formula(seed, n, 1, 0.3)
	case name == "class_token" || name == "encoder.pos_embedding":
		return formula(seed, n, 0, 0.5)
	case len(shape) > 1:
		return formula(seed, n, 0, math.Sqrt(6/float64(n/shape[0])))
	case strings.HasSuffix(name, "weight"):
		return formula(seed, n, 1, 0.2)
	default:
		return formula(seed, n, 0, 0.1)
	}
}

// names are torchvision's, with those of ours as patterns of regular expressions.
var names = map[string][][2]string{
	"ResNet": {
		{`^/conv(\d)/conv/weights`, "conv$1.weight"},
		{`^/conv(\d)/batch_normalization`, "bn$1"},
		{`^/layer(\d)_(\d)/conv(\d)/conv/weights`, "layer$1.$2.conv$3.weight"},
		{`^/layer(\d)_(\d)/conv(\d)/batch_normalization`, "layer$1.$2.bn$3"},
		{`^/layer(\d)_(\d)/downsample/conv/weights`, "layer$1.$2.downsample.0.weight"},
		{`^/layer(\d)_(\d)/downsample/batch_normalization`, "layer$1.$2.downsample.1"},
		{`^/output/dense`, "fc"},
	},
	"MobileNetV2": {
		{`^/conv1/conv/weights`, "features.0.0.weight"},
		{`^/conv1/batch_normalization`, "features.0.1"},
		{`^/block0/depthwise/conv/weights`, "features.1.conv.0.0.weight"},
		{`^/block0/depthwise/batch_normalization`, "features.1.conv.0.1"},
		{`^/block0/project/conv/weights`, "features.1.conv.1.weight"},
		{`^/block0/project/batch_normalization`, "features.1.conv.2"},
		{`^/block(\d+)/expand/conv/weights`, "features.+$1.conv.0.0.weight"},
		{`^/block(\d+)/expand/batch_normalization`, "features.+$1.conv.0.1"},
		{`^/block(\d+)/depthwise/conv/weights`, "features.+$1.conv.1.0.weight"},
		{`^/block(\d+)/depthwise/batch_normalization`, "features.+$1.conv.1.1"},
		{`^/block(\d+)/project/conv/weights`, "features.+$1.conv.2.weight"},
		{`^/block(\d+)/project/batch_normalization`, "features.+$1.conv.3"},
		{`^/conv2/conv/weights`, "features.18.0.weight"},
		{`^/conv2/batch_normalization`, "features.18.1"},
		{`^/output/dense`, "classifier.1"},
	},
	"ViT-B/16": {
		{`^/patches/conv`, "conv_proj"},
		{`^/tokens/class`, "class_token"},
		{`^/tokens/positions`, "encoder.pos_embedding"},
		{`^/encoder(\d+)/norm(\d)/layer_normalization`, "encoder.layers.encoder_layer_$1.ln_$2"},
		{`^/encoder(\d+)/attention/MultiHeadAttention/(query|key|value)/dense/weights`, "encoder.layers.encoder_layer_$1.self_attention.in_proj_weight"},
		{`^/encoder(\d+)/attention/MultiHeadAttention/(query|key|value)/dense/biases`, "encoder.layers.encoder_layer_$1.self_attention.in_proj_bias"},
		{`^/encoder(\d+)/attention/MultiHeadAttention/output/dense`, "encoder.layers.encoder_layer_$1.self_attention.out_proj"},
		{`^/encoder(\d+)/fc1/dense`, "encoder.layers.encoder_layer_$1.mlp.0"},
		{`^/encoder(\d+)/fc2/dense`, "encoder.layers.encoder_layer_$1.mlp.3"},
		{`^/norm/layer_normalization`, "encoder.ln"},
		{`^/output/dense`, "heads.head"},
	},
}

// torchName is the name of a variable in torchvision.
func torchName(network, path string) (string, error) {
	family, _, _ := strings.Cut(network, "-")
	if network == "ViT-B/16" {
		family = network
	}
	for _, n := range names[family] {
		pattern := regexp.MustCompile(n[0])
		if !pattern.MatchString(path) {
			continue
		}
		name := pattern.ReplaceAllString(path, n[1])
		name = regexp.MustCompile(`\+\d+`).ReplaceAllStringFunc(name, func(block string) string { // torchvision counts from the first convolution
			i, _ := strconv.Atoi(block[1:])
			return fmt.Sprint(i + 1)
		})
		for ours, theirs := range map[string]string{"/weights": ".weight", "/biases": ".bias", "/scale": ".weight", "/gain": ".weight", "/offset": ".bias", "/mean": ".running_mean", "/variance": ".running_var"} {
			name = strings.Replace(name, ours, theirs, 1)
		}
		return name, nil
	}
	return "", fmt.Errorf("%s: the variable %s has no name in torchvision", network, path)
}

// fromTorch is the value of a variable of ours, from torchvision's parameter.
func fromTorch(name, path string, shape shapes.Shape) []float32 {
	d := shape.Dimensions
	switch {
	case strings.Contains(name, "in_proj"): // query, key and value in one
		part := map[string]int{"query": 0, "key": 1, "value": 2}[regexp.MustCompile(`query|key|value`).FindString(path)]
		if strings.HasSuffix(name, "bias") {
			n := shape.Size()
			return parameter(name, 3*n)[part*n : (part+1)*n]
		}
		n := shape.Size() / d[0] // [in, heads, size of a head]
		return transposed(parameter(name, 3*n, d[0])[part*n*d[0]:(part+1)*n*d[0]], n, d[0], 1)
	case strings.HasSuffix(name, "weight") && len(d) == 2:
		return transposed(parameter(name, d[1], d[0]), d[1], d[0], 1)
	case strings.HasSuffix(name, "weight") && len(d) == 4:
		return transposed(parameter(name, d[3], d[2], d[0], d[1]), d[3], d[2], d[0]*d[1])
	default:
		return parameter(name, d...)
	}
}

// transposed is [pixels, in, out] of [out, in, pixels].
func transposed(x []float32, out, in, pixels int) []float32 {
	y := make([]float32, len(x))
	for o := range out {
		for i := range in {
			for p := range pixels {
				y[(p*in+i)*out+o] = x[(o*in+i)*pixels+p]
			}
		}
	}
	return y
}

// With the same weights, the networks compute what torchvision's do.
func TestAgainstTorchvision(t *testing.T) {
	text, err := os.ReadFile("testdata/torchvision/logits.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string][]float64
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	image := formula(1, 224*224*3, 0, 1)
	for name, want := range all {
		t.Run(name, func(t *testing.T) {
			n, err := Find(name)
			if err != nil {
				t.Fatal(err)
			}
			shapesOf := model.NewStore()
			g := graph.NewGraph(best(t), n.Name)
			defer g.Finalize()
			model.SetStore(g, shapesOf)
			n.Model(shapesOf.RootScope(), graph.Parameter(g, "x", shapes.Make(dtypes.Float32, 1, 224, 224, 3)))
			store := model.NewStore()
			for v := range shapesOf.IterVariables() {
				if !v.InUseByGraph(g) {
					continue
				}
				theirs, err := torchName(n.Name, v.Path())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := store.CreateVariable(v.Path(), tensors.FromFlatDataAndDimensions(fromTorch(theirs, v.Path(), v.Shape()), v.Shape().Dimensions...)); err != nil {
					t.Fatal(err)
				}
			}
			exec, err := model.NewExec(best(t), store, func(_ *model.Scope, x *graph.Node) *graph.Node { return n.Model(store.RootScope(), x) })
			if err != nil {
				t.Fatal(err)
			}
			defer exec.Finalize()
			y, err := exec.Call1(tensors.FromFlatDataAndDimensions(image, 1, 224, 224, 3))
			if err != nil {
				t.Fatal(err)
			}
			got, worst := y.Value().([][]float32)[0], 0.0
			for i := range want {
				worst = max(worst, math.Abs(float64(got[i])-want[i]))
			}
			t.Logf("max |Δ| %.2g", worst)
			if !(worst <= 1e-4) { // of logits between -12 and 12
				t.Errorf("logits %v …, want %v …, max |Δ| %g", got[:5], want[:5], worst)
			}
		})
	}
}
