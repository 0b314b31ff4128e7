package structured

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/mat"

	"github.com/espalier-ml/espalier/pkg/backend"
)

// GeneratorConfig says how large the network of Generator is and how long it learns. The zero value takes the defaults.
type GeneratorConfig struct {
	// Backend trains the network. nil: backend.Open()
	Backend compute.Backend
	// Latent is how many numbers stand for an example, Hidden the width of the layer between them and the example. Defaults: 16 and 128
	Latent, Hidden int
	// Steps of Adam, on Batch examples each, with this learning rate. Defaults: 1000, 64 and 1e-3
	Steps, Batch int
	LearningRate float64
}

// Generator draws knockoffs from a small generative network, a variational autoencoder of dense layers (Kingma & Welling 2014, arXiv:1312.6114) that Fit trains on the examples: what SecondOrder says
// by a covariance alone, it may say by a curve. The deviation of the reconstruction, which weighs it against the divergence of the code from N(0, 1), is the one that fits best (Rybkin et al. 2021,
// arXiv:2006.13202), so nothing has to be tuned.
//
// A knockoff is drawn in three parts: a code from a normal distribution with the mean and the covariance that the codes of the examples have (with few examples they are not N(0, 1); Ghosh et al. 2020,
// arXiv:1903.12436, fit one after training, too), what the network makes of it, and for each feature by itself noise as large as what reconstructions leave over.
//
// SCOP's authors draw from a larger network of transposed convolutions. It too is trained before, and its samples do not depend on the images that they accompany.
//
// Errors of Fit: *ConfigError, *DataError, *DivergedError; the backend's.
func Generator(cfg GeneratorConfig) Knockoffs {
	return Knockoffs{Name: "generator", Cite: "Kingma & Welling 2014, arXiv:1312.6114; variance after Rybkin et al. 2021, arXiv:2006.13202",
		Fit: func(examples [][]float32, rng *rand.Rand) (func(batch, out [][]float32, rng *rand.Rand), error) {
			d, err := cfg.fit(examples, rng)
			if err != nil {
				return nil, err
			}
			return func(_, out [][]float32, rng *rand.Rand) { d.draw(out, rng) }, nil
		}}
}

// decoder is a trained generative network. It computes on the host: a draw can't fail, and nothing has to be freed.
type decoder struct {
	mean, rest     []float32 // of each feature, and the deviation of what a reconstruction leaves over
	scale          float32   // what the network calls 1
	codeMean       []float64
	codeCholesky   mat.TriDense
	hidden, output affine // [latent] -> [hidden], [hidden] -> [features]
}

// affine is x·weights + bias.
type affine struct {
	weights blas32.General // [in, out]
	bias    []float32
}

// apply returns the layer's outputs for rows. [rows, in] -> [rows, out]
func (a affine) apply(x blas32.General) blas32.General {
	y := blas32.General{Rows: x.Rows, Cols: a.weights.Cols, Stride: a.weights.Cols, Data: make([]float32, x.Rows*a.weights.Cols)}
	for r := range y.Rows {
		copy(y.Data[r*y.Stride:], a.bias)
	}
	blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, x, a.weights, 1, y)
	return y
}

// decode returns what the network makes of codes, in its own units. [rows, latent] -> [rows, features]
func (d *decoder) decode(codes blas32.General) blas32.General {
	h := d.hidden.apply(codes)
	rectify(h.Data)
	return d.output.apply(h)
}

func rectify(x []float32) {
	for i, v := range x {
		x[i] = max(0, v)
	}
}

// draw writes a knockoff to each row.
func (d *decoder) draw(out [][]float32, rng *rand.Rand) {
	if len(out) == 0 {
		return
	}
	latent := len(d.codeMean)
	codes := blas32.General{Rows: len(out), Cols: latent, Stride: latent, Data: make([]float32, len(out)*latent)}
	normal := make([]float64, latent)
	for r := range out {
		for i := range normal {
			normal[i] = rng.NormFloat64()
		}
		for i := range normal {
			z := d.codeMean[i]
			for j := range i + 1 {
				z += d.codeCholesky.At(i, j) * normal[j]
			}
			codes.Data[r*latent+i] = float32(z)
		}
	}
	y := d.decode(codes)
	for r, x := range out {
		for i := range x {
			x[i] = d.mean[i] + d.scale*(y.Data[r*y.Stride+i]+d.rest[i]*float32(rng.NormFloat64()))
		}
	}
}

// defaults fills in what is not set.
func (c GeneratorConfig) defaults() (GeneratorConfig, error) {
	for _, f := range []struct {
		name   string
		value  *int
		preset int
	}{{"Latent", &c.Latent, 16}, {"Hidden", &c.Hidden, 128}, {"Steps", &c.Steps, 1000}, {"Batch", &c.Batch, 64}} {
		if *f.value < 0 {
			return c, &ConfigError{"GeneratorConfig." + f.name, fmt.Sprintf("it is %d", *f.value), fmt.Sprintf("give a positive number, or 0 for %d", f.preset)}
		}
		if *f.value == 0 {
			*f.value = f.preset
		}
	}
	if !(c.LearningRate >= 0) || math.IsInf(c.LearningRate, 0) {
		return c, &ConfigError{"GeneratorConfig.LearningRate", fmt.Sprintf("it is %v", c.LearningRate), "give a positive number, or 0 for 1e-3"}
	}
	if c.LearningRate == 0 {
		c.LearningRate = 1e-3
	}
	var err error
	if c.Backend == nil {
		c.Backend, err = backend.Open()
	}
	return c, err
}

// standard returns examples less their mean, over the deviation of all features together, and how many of the features vary at all.
func standard(examples [][]float32) (rows, mean []float32, scale float32, varying int, err error) {
	const data = "examples of the knockoffs"
	if len(examples) < 2 || len(examples[0]) == 0 {
		return nil, nil, 0, 0, &DataError{data, fmt.Sprintf("there are %d", len(examples)), "give two at least, with a feature at least: what varies is learnt from how they differ"}
	}
	n, features := len(examples), len(examples[0])
	sums := make([]float64, features)
	for r, x := range examples {
		if len(x) != features {
			return nil, nil, 0, 0, &DataError{data, fmt.Sprintf("number %d has %d features, and the first %d", r, len(x), features), "give examples of one size"}
		}
		for i, v := range x {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return nil, nil, 0, 0, &DataError{data, fmt.Sprintf("feature %d of number %d is %v", i, r, v), "give finite numbers"}
			}
			sums[i] += float64(v) / float64(n)
		}
	}
	mean = make([]float32, features)
	total := 0.0
	for i, m := range sums {
		mean[i] = float32(m)
		square, varies := 0.0, false
		for _, x := range examples {
			varies = varies || x[i] != examples[0][i]
			square += (float64(x[i]) - m) * (float64(x[i]) - m) / float64(n)
		}
		if varies {
			total += square
			varying++
		} else {
			mean[i] = examples[0][i]
		}
	}
	scale = 1
	if varying > 0 {
		scale = float32(math.Sqrt(total / float64(varying)))
	}
	rows = make([]float32, 0, n*features)
	for _, x := range examples {
		for i, v := range x {
			rows = append(rows, (v-mean[i])/scale)
		}
	}
	return rows, mean, scale, varying, nil
}

// The layers of the network.
const (
	encoderHidden = "/encoder/hidden"
	encoderMean   = "/encoder/mean"
	encoderSpread = "/encoder/spread" // the logarithm of the variance
	decoderHidden = "/decoder/hidden"
	decoderOutput = "/decoder/output"
)

var generatorLayers = []string{encoderHidden, encoderMean, encoderSpread, decoderHidden, decoderOutput}

// fit trains the network.
func (c GeneratorConfig) fit(examples [][]float32, rng *rand.Rand) (*decoder, error) {
	c, err := c.defaults()
	if err != nil {
		return nil, err
	}
	rows, mean, scale, varying, err := standard(examples)
	if err != nil {
		return nil, err
	}
	n, features := len(examples), len(mean)
	store := model.NewStore()
	create := func(layer string, in, out int, gain float64) error {
		w := make([]float32, in*out)
		for i := range w {
			w[i] = float32(gain / math.Sqrt(float64(in)) * rng.NormFloat64())
		}
		if _, err := store.CreateVariable(layer+"/weights", tensors.FromFlatDataAndDimensions(w, in, out)); err != nil {
			return err
		}
		_, err := store.CreateVariable(layer+"/biases", tensors.FromFlatDataAndDimensions(make([]float32, out), out))
		return err
	}
	for _, l := range []struct {
		name    string
		in, out int
		gain    float64
	}{
		{encoderHidden, features, c.Hidden, math.Sqrt2}, {encoderMean, c.Hidden, c.Latent, 1}, {encoderSpread, c.Hidden, c.Latent, 0}, // the variance starts at 1
		{decoderHidden, c.Latent, c.Hidden, math.Sqrt2}, {decoderOutput, c.Hidden, features, 0}, // it starts from the mean, and a feature that never varies stays there
	} {
		if err := create(l.name, l.in, l.out, l.gain); err != nil {
			return nil, err
		}
	}
	if varying > 0 {
		if err := c.train(store, rows, n, varying, rng); err != nil {
			return nil, err
		}
	}
	d := &decoder{mean: mean, scale: scale, rest: make([]float32, features)}
	layers := map[string]affine{}
	for _, name := range generatorLayers {
		if layers[name], err = layerOf(store, name); err != nil {
			return nil, err
		}
	}
	d.hidden, d.output = layers[decoderHidden], layers[decoderOutput]
	if !d.describe(layers, rows, n, rng) {
		return nil, &DivergedError{"Generator", c.Steps, "the covariance of the codes"}
	}
	return d, nil
}

// layerOf reads a layer.
func layerOf(store *model.Store, name string) (a affine, err error) {
	d := store.GetVariable(name + "/weights").Shape().Dimensions
	a.weights = blas32.General{Rows: d[0], Cols: d[1], Stride: d[1]}
	if a.weights.Data, err = values(store, name+"/weights"); err != nil {
		return a, err
	}
	a.bias, err = values(store, name+"/biases")
	return a, err
}

// dense is a layer in a graph. [batch, in] -> [batch, out]
func dense(store *model.Store, layer string, x *graph.Node) *graph.Node {
	w, b := store.GetVariable(layer+"/weights").NodeValue(x), store.GetVariable(layer+"/biases").NodeValue(x)
	return graph.Add(graph.Dot(x, w).Product(), graph.ExpandLeftToRank(b, 2))
}

// train minimises F/2·log(mean squared error) + KL(codes ‖ N(0, 1)) per example, with F the features that vary: the negative evidence bound, but for a constant, at the best variance.
func (c GeneratorConfig) train(store *model.Store, rows []float32, n, varying int, rng *rand.Rand) error {
	features := len(rows) / n
	var variables []*model.Variable
	for _, layer := range generatorLayers {
		variables = append(variables, store.GetVariable(layer+"/weights"), store.GetVariable(layer+"/biases"))
	}
	exec, err := runner(c.Backend, store, true, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		x, noise, step := in[0], in[1], in[2] // [batch, features], [batch, latent], scalar
		nodes := make([]*graph.Node, len(variables))
		for i, v := range variables {
			nodes[i] = v.NodeValue(x)
		}
		h := activation.Relu(dense(store, encoderHidden, x))                         // [batch, features] -> [batch, hidden]
		mean, spread := dense(store, encoderMean, h), dense(store, encoderSpread, h) // of the codes, each [batch, latent]
		code := graph.Add(mean, graph.Mul(graph.Exp(graph.MulScalar(spread, 0.5)), noise))
		y := dense(store, decoderOutput, activation.Relu(dense(store, decoderHidden, code))) // [batch, latent] -> [batch, features]
		// The floor of a thousandth of the data's deviation is for data that the network can learn by heart: without it the logarithm has no lower end.
		miss := graph.AddScalar(graph.MulScalar(graph.ReduceAllMean(graph.Square(graph.Sub(x, y))), float64(features)/float64(varying)), 1e-6)
		divergence := graph.MulScalar(graph.ReduceAllSum(graph.Sub(graph.Add(graph.Square(mean), graph.Exp(spread)), graph.OnePlus(spread))), 0.5/float64(x.Shape().Dim(0)))
		l := graph.Add(graph.MulScalar(graph.Log(miss), float64(varying)/2), divergence)
		grads := graph.Gradient(l, nodes...)
		for i, v := range variables {
			v.SetNodeValue(adam(store, v, nodes[i], grads[i], step, c.LearningRate, 0.9, 0.999))
		}
		return []*graph.Node{l}
	})
	if err != nil {
		return err
	}
	defer exec.Finalize()
	size := min(c.Batch, n)
	var order []int
	for step := range c.Steps {
		x, noise := make([]float32, 0, size*features), make([]float32, size*c.Latent)
		for range size { // epochs follow each other without a gap
			if len(order) == 0 {
				order = rng.Perm(n)
			}
			x = append(x, rows[order[0]*features:(order[0]+1)*features]...)
			order = order[1:]
		}
		for i := range noise {
			noise[i] = float32(rng.NormFloat64())
		}
		results, err := call("train the generator", exec, tensors.FromFlatDataAndDimensions(x, size, features), tensors.FromFlatDataAndDimensions(noise, size, c.Latent),
			tensors.FromScalar(float32(step+1)))
		if err != nil {
			return err
		}
		found, err := host(results)
		if err != nil {
			return err
		}
		if l := float64(found[0][0]); math.IsNaN(l) || math.IsInf(l, 0) {
			return &DivergedError{"Generator", step + 1, "the loss"}
		}
	}
	return nil
}

// describe finds how the codes of the examples lie, and what their reconstructions leave over. It returns false if the codes have no covariance.
func (d *decoder) describe(encoder map[string]affine, rows []float32, n int, rng *rand.Rand) bool {
	features, latent := len(d.mean), d.hidden.weights.Rows
	h := encoder[encoderHidden].apply(blas32.General{Rows: n, Cols: features, Stride: features, Data: rows})
	rectify(h.Data)
	means, spreads := encoder[encoderMean].apply(h).Data, encoder[encoderSpread].apply(h).Data
	// The codes' covariance is that of their means, and besides the mean of their own variances.
	d.codeMean = make([]float64, latent)
	covariance := mat.NewSymDense(latent, nil)
	codes := blas32.General{Rows: n, Cols: latent, Stride: latent, Data: make([]float32, n*latent)}
	for at, m := range means {
		d.codeMean[at%latent] += float64(m) / float64(n)
	}
	for r := range n {
		of := means[r*latent : (r+1)*latent]
		for i, m := range of {
			deviation := math.Exp(float64(spreads[r*latent+i]) / 2)
			codes.Data[r*latent+i] = float32(float64(m) + deviation*rng.NormFloat64())
			for j := range i + 1 {
				covariance.SetSym(i, j, covariance.At(i, j)+(float64(m)-d.codeMean[i])*(float64(of[j])-d.codeMean[j])/float64(n))
			}
			covariance.SetSym(i, i, covariance.At(i, i)+deviation*deviation/float64(n))
		}
	}
	var cholesky mat.Cholesky
	if !cholesky.Factorize(covariance) {
		return false
	}
	cholesky.LTo(&d.codeCholesky)
	y := d.decode(codes)
	for r := range n {
		for i := range features {
			e := rows[r*features+i] - y.Data[r*features+i]
			d.rest[i] += e * e / float32(n)
		}
	}
	for i, square := range d.rest {
		d.rest[i] = float32(math.Sqrt(float64(square)))
	}
	return true
}
