// Package lower computes the gradients of convolutions as products of matrices, for XLA on the CPU: it takes ten times as long for them inside of a loop as outside, and these
// products are a little faster than either. Convolutions themselves it does well everywhere. The network stays as it is written: it is the backend that is given another program.
package lower

import (
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// Backend computes with another backend, but the gradients of convolutions as products of matrices. Its tensors are its own: GoMLX tells backends apart by their identity.
type Backend struct {
	compute.Backend
	refused bool
}

// On returns a backend that lowers for XLA on the CPU, nil for others, which have good convolutions of their own or none.
func On(b compute.Backend) *Backend {
	if plugin, ok := b.(interface{ PluginName() string }); !ok || !strings.Contains(plugin.PluginName(), "cpu") {
		return nil
	}
	return &Backend{Backend: b}
}

// All tells whether there was no convolution so far that isn't fit for this: none with strides, dilations or groups, nor of a form for which it is slower, as 3x3 kernels of many
// channels are. These are left to the backend as they are.
func (b *Backend) All() bool { return !b.refused }

// Builder implements compute.Backend.
func (b *Backend) Builder(name string) compute.Builder {
	return &builder{Builder: b.Backend.Builder(name), backend: b}
}

type builder struct {
	compute.Builder
	backend *Backend
	main    *function
}

// Main implements compute.Builder.
func (b *builder) Main() compute.Function {
	if b.main == nil {
		b.main = &function{Function: b.Builder.Main(), builder: b}
	}
	return b.main
}

// NewFunction implements compute.Builder.
func (b *builder) NewFunction(name string) (compute.Function, error) {
	f, err := b.Builder.NewFunction(name)
	return &function{Function: f, builder: b}, err
}

type function struct {
	compute.Function
	builder *builder
	parent  *function
}

// Builder implements compute.Function.
func (f *function) Builder() compute.Builder { return f.builder }

// Parent implements compute.Function.
func (f *function) Parent() compute.Function {
	if f.parent == nil {
		return nil
	}
	return f.parent
}

// Closure implements compute.Function.
func (f *function) Closure() (compute.Function, error) {
	inner, err := f.Function.Closure()
	return &function{Function: inner, builder: f.builder, parent: f}, err
}

func inner(f compute.Function) compute.Function { return f.(*function).Function }

// Call implements compute.Function.
func (f *function) Call(callee compute.Function, inputs ...compute.Value) ([]compute.Value, error) {
	return f.Function.Call(inner(callee), inputs...)
}

// Sort implements compute.Function.
func (f *function) Sort(comparator compute.Function, axis int, isStable bool, inputs ...compute.Value) ([]compute.Value, error) {
	return f.Function.Sort(inner(comparator), axis, isStable, inputs...)
}

// While implements compute.Function.
func (f *function) While(cond, body compute.Function, initialState ...compute.Value) ([]compute.Value, error) {
	return f.Function.While(inner(cond), inner(body), initialState...)
}

// If implements compute.Function.
func (f *function) If(pred compute.Value, trueBranch, falseBranch compute.Function) ([]compute.Value, error) {
	return f.Function.If(pred, inner(trueBranch), inner(falseBranch))
}

// ConvGeneral implements compute.Function.
func (f *function) ConvGeneral(input, kernel compute.Value, axes compute.ConvolveAxesConfig, strides []int, paddings [][2]int, inputDilations, kernelDilations []int,
	channelGroupCount, batchGroupCount int) (compute.Value, error) {
	c := &calculation{f: f.Function}
	x, k := c.shape(input), c.shape(kernel)
	if c.err == nil && x.DType == dtypes.Float32 && x.Rank() == 4 && plain(strides) && plain(inputDilations) && plain(kernelDilations) && channelGroupCount <= 1 && batchGroupCount <= 1 {
		conv := convolution{calculation: c, axes: axes, low: make([]int, 4), high: make([]int, 4)}
		for i, p := range paddings {
			conv.low[axes.InputSpatial[i]], conv.high[axes.InputSpatial[i]] = p[0], p[1]
		}
		conv.measure(x, k)
		if conv.pays() {
			switch {
			case conv.ofKernel():
				result := conv.gradientOfKernel(c.pad(input, conv.low, conv.high), kernel)
				return result, c.err
			case conv.ofInput():
				result := conv.gradientOfInput(input, kernel)
				return result, c.err
			}
			return f.Function.ConvGeneral(input, kernel, axes, strides, paddings, inputDilations, kernelDilations, channelGroupCount, batchGroupCount)
		}
	}
	f.builder.backend.refused = true
	return f.Function.ConvGeneral(input, kernel, axes, strides, paddings, inputDilations, kernelDilations, channelGroupCount, batchGroupCount)
}

func plain(steps []int) bool { return !slices.ContainsFunc(steps, func(s int) bool { return s != 1 }) }

// convolution is one of two spatial axes, without strides, dilations and groups.
type convolution struct {
	*calculation
	axes          compute.ConvolveAxesConfig
	low, high     []int // padding of each axis of the input
	batch, in     int
	out           int
	height, width int // of the padded input
	kh, kw        int
	oh, ow        int
}

func (c *convolution) measure(x, k shapes.Shape) {
	a := c.axes
	c.batch, c.in, c.out = x.Dimensions[a.InputBatch], x.Dimensions[a.InputChannels], k.Dimensions[a.KernelOutputChannels]
	c.kh, c.kw = k.Dimensions[a.KernelSpatial[0]], k.Dimensions[a.KernelSpatial[1]]
	size := func(i int) int { at := a.InputSpatial[i]; return c.low[at] + x.Dimensions[at] + c.high[at] }
	c.height, c.width = size(0), size(1)
	c.oh, c.ow = c.height-c.kh+1, c.width-c.kw+1
}

// ofKernel tells whether this is the gradient of a kernel, which GoMLX computes as a convolution of the input with the gradient of the output, batch and
// channels swapped: then the kernel of the convolution is larger than its result.
func (c *convolution) ofKernel() bool { return c.kh*c.kw > c.oh*c.ow }

// ofInput tells whether this is the gradient of an input, which GoMLX computes as a convolution of the gradient of the output with the kernel turned around, its axes of channels
// swapped.
func (c *convolution) ofInput() bool { return c.axes.KernelInputChannels > c.axes.KernelOutputChannels }

// small is up to how many places and channels a kernel has whose gradient is a single product of matrices.
const small = 32

// pays tells whether the products are faster, by what was measured of LeNet-5 and of layers of ResNet-20: 5x5 kernels, and first layers.
func (c *convolution) pays() bool {
	h, w := c.axes.InputSpatial[0], c.axes.InputSpatial[1]
	if slices.Min(append(slices.Clone(c.low), c.high...)) < 0 || c.ofInput() && (max(c.low[h], c.high[h]) >= c.kh || max(c.low[w], c.high[w]) >= c.kw) {
		return false
	}
	taps, channels := c.kh*c.kw, c.in
	if c.ofKernel() {
		taps, channels = c.oh*c.ow, c.batch
	}
	return taps <= 49 && (taps >= 25 || taps*channels <= small)
}

// gradientOfInput multiplies each place with the whole kernel, and adds that up where it belongs.
func (c *convolution) gradientOfInput(x, k compute.Value) compute.Value {
	a := c.axes
	x = c.transpose(x, a.InputBatch, a.InputSpatial[0], a.InputSpatial[1], a.InputChannels)                   // -> [batch, h, w, in]
	k = c.transpose(k, a.KernelInputChannels, a.KernelSpatial[0], a.KernelSpatial[1], a.KernelOutputChannels) // -> [in, kh, kw, out]
	all := c.dot(x, []int{3}, c.reshape(k, c.in, c.kh*c.kw*c.out), []int{0})                                  // [batch, h, w, kh·kw·out]
	var rows compute.Value                                                                                    // [batch, h + kh − 1, w, kw·out]
	for i := range c.kh {
		row := c.slice(all, 3, i*c.kw*c.out, c.kw*c.out)
		rows = c.add(rows, c.pad(row, []int{0, c.kh - 1 - i, 0, 0}, []int{0, i, 0, 0}))
	}
	// Where the convolution was padded, some of that is outside of its input.
	rows = c.once(c.slice(rows, 1, c.kh-1-c.low[a.InputSpatial[0]], c.oh), x)
	var sum compute.Value // [batch, oh, w + kw − 1, out]
	for j := range c.kw {
		sum = c.add(sum, c.pad(c.slice(rows, 3, j*c.out, c.out), []int{0, 0, c.kw - 1 - j, 0}, []int{0, 0, j, 0}))
	}
	sum = c.once(c.slice(sum, 2, c.kw-1-c.low[a.InputSpatial[1]], c.ow), x)
	order := make([]int, 4)
	order[a.OutputBatch], order[a.OutputSpatial[0]], order[a.OutputSpatial[1]], order[a.OutputChannels] = 0, 1, 2, 3
	return c.transpose(sum, order...)
}

// gradientOfKernel multiplies what lay under each place of the kernel with the gradient of the output, summed over batch and places: row by row, or where there is little, all at
// once. x, which is padded, has its own order of axes, and so has k, the gradient of the output.
func (c *convolution) gradientOfKernel(x, k compute.Value) compute.Value {
	a := c.axes
	h, w := a.InputSpatial[0], a.InputSpatial[1]
	summed := []int{a.InputChannels, h, w}
	with := []int{a.KernelInputChannels, a.KernelSpatial[0], a.KernelSpatial[1]}
	rows := c.beside(x, w, c.kw, c.ow, a.InputBatch) // batch, which is the channels of the kernel's convolution, becomes ow·batch
	if c.oh*c.ow*c.batch <= small {
		all := c.dot(c.beside(rows, h, c.kh, c.oh, a.InputBatch), summed, k, with) // -> [oh·ow·batch, out]
		return c.arrange(c.reshape(all, c.oh, c.ow, c.batch, c.out))
	}
	var parts []compute.Value
	for i := range c.oh {
		parts = append(parts, c.reshape(c.dot(k, with, c.slice(rows, h, i, c.kh), summed), 1, c.out, c.ow, c.batch))
	}
	return c.arrange(c.transpose(c.concatenate(0, parts), 0, 2, 3, 1)) // [oh, out, ow, batch] -> [oh, ow, batch, out]
}

// arrange brings a result [oh, ow, batch, out] into the order that is asked for.
func (c *convolution) arrange(y compute.Value) compute.Value {
	order := make([]int, 4)
	order[c.axes.OutputSpatial[0]], order[c.axes.OutputSpatial[1]], order[c.axes.OutputBatch], order[c.axes.OutputChannels] = 0, 1, 2, 3
	return c.transpose(y, order...)
}

// beside lays n windows of a size along an axis side by side on another axis.
func (c *convolution) beside(x compute.Value, axis, size, n, on int) compute.Value {
	parts := make([]compute.Value, n)
	for j := range parts {
		parts[j] = c.slice(x, axis, j, size)
	}
	return c.concatenate(on, parts)
}

// calculation is a function being built; after the first error it does nothing.
type calculation struct {
	f   compute.Function
	err error
}

func (c *calculation) do(what func() (compute.Value, error)) (v compute.Value) {
	if c.err == nil {
		v, c.err = what()
	}
	return v
}

func (c *calculation) shape(x compute.Value) (s shapes.Shape) {
	if c.err == nil {
		s, c.err = c.f.Shape(x)
	}
	return s
}

func (c *calculation) slice(x compute.Value, axis, start, size int) compute.Value {
	s := c.shape(x)
	if c.err != nil || start == 0 && size == s.Dimensions[axis] {
		return x
	}
	starts, limits := make([]int, s.Rank()), slices.Clone(s.Dimensions)
	starts[axis], limits[axis] = start, start+size
	return c.do(func() (compute.Value, error) { return c.f.Slice(x, starts, limits, nil) })
}

func (c *calculation) concatenate(axis int, parts []compute.Value) compute.Value {
	if len(parts) == 1 {
		return parts[0]
	}
	return c.do(func() (compute.Value, error) { return c.f.Concatenate(axis, parts...) })
}

func (c *calculation) reshape(x compute.Value, dims ...int) compute.Value {
	return c.do(func() (compute.Value, error) { return c.f.Reshape(x, dims...) })
}

func (c *calculation) transpose(x compute.Value, order ...int) compute.Value {
	if slices.IsSorted(order) {
		return x
	}
	return c.do(func() (compute.Value, error) { return c.f.Transpose(x, order...) })
}

// dot sums over some axes of both. Where these are the first of each, XLA is given matrices: of more axes it would make transposed copies, on one thread.
func (c *calculation) dot(a compute.Value, over []int, b compute.Value, with []int) compute.Value {
	if leading(over) && leading(with) {
		a, b = c.flat(a, len(over)), c.flat(b, len(with))
		over, with = []int{0}, []int{0}
	}
	return c.do(func() (compute.Value, error) {
		return c.f.DotGeneral(a, over, nil, b, with, nil, compute.DotGeneralConfig{})
	})
}

func leading(axes []int) bool {
	return len(axes) > 1 && slices.Equal(axes, []int{0, 1, 2, 3}[:len(axes)])
}

// flat makes one of the first axes.
func (c *calculation) flat(x compute.Value, first int) compute.Value {
	s := c.shape(x)
	if c.err != nil {
		return x
	}
	n := 1
	for _, d := range s.Dimensions[:first] {
		n *= d
	}
	return c.reshape(x, append([]int{n}, s.Dimensions[first:]...)...)
}

func (c *calculation) add(a, b compute.Value) compute.Value {
	if a == nil {
		return b
	}
	return c.do(func() (compute.Value, error) { return c.f.Add(a, b) })
}

func (c *calculation) pad(x compute.Value, low, high []int) compute.Value {
	if slices.Max(low) == 0 && slices.Max(high) == 0 {
		return x
	}
	axes := make([]compute.PadAxis, len(low))
	for i := range axes {
		axes[i] = compute.PadAxis{Start: low[i], End: high[i]}
	}
	zero := c.do(func() (compute.Value, error) { return c.f.Constant([]float32{0}) })
	return c.do(func() (compute.Value, error) { return c.f.Pad(x, zero, axes...) })
}

// once has x computed a single time: XLA would write it into each of its users, and then none of its terms into x. with is any value that is there before x; of a barrier before a
// single value go-xla makes none.
func (c *calculation) once(x, with compute.Value) compute.Value {
	if c.err != nil {
		return x
	}
	barred, err := c.f.OptimizationBarrier(x, with)
	if err != nil {
		c.err = err
		return x
	}
	return barred[0]
}
