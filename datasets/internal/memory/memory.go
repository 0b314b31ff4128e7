// Package memory holds a labelled image data set in memory and feeds it to training.
//
// A [Dataset] is a view of examples: light copies of it differ in batch, seed or length and share the arrays. It implements GoMLX's
// train.Dataset, one batch at a time, and gives the whole of its arrays, the order of each epoch and the decoding of a raw batch to
// loops that keep the data on the device.
package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"image"
	"iter"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

const (
	// DefaultBatch is the number of examples in a batch of a training set.
	DefaultBatch = 128
	// EvaluationBatch is the number of examples in a batch of an evaluation set. It divides the usual 5,000 and 10,000, so that no
	// partial batch makes the backend compile a second graph.
	EvaluationBatch = 500
)

// Contents is the data itself. Nothing in it is changed after it was given to [New].
type Contents struct {
	Name                    string   // of the data set: "mnist"
	Part                    string   // "train", "validation" or "test"
	Height, Width, Channels int      // of each image
	Inputs                  []uint8  // [n, height, width, channels], row-major
	Labels                  []int32  // [n], each in [0, len(ClassNames))
	ClassNames              []string // in the order of the labels
}

// check returns a fault.ErrFormat unless the parts of c fit together.
func (c *Contents) check() error {
	bad := func(expected, came string) error {
		return &fault.Error{Kind: fault.ErrFormat, File: c.Name + " " + c.Part, Expected: expected, Came: came}
	}
	if c.Height < 1 || c.Width < 1 || c.Channels < 1 {
		return bad("images with at least one pixel", fmt.Sprintf("%dx%dx%d", c.Height, c.Width, c.Channels))
	}
	if most := max(len(c.Inputs), 1); c.Width > most/c.Height || c.Channels > most/(c.Height*c.Width) { // before a product overflows
		return bad(fmt.Sprintf("images within %d bytes", len(c.Inputs)), fmt.Sprintf("%dx%dx%d", c.Height, c.Width, c.Channels))
	}
	if len(c.Labels) == 0 {
		return bad("at least one example", "none")
	}
	if size := c.Height * c.Width * c.Channels; len(c.Inputs)/size != len(c.Labels) || len(c.Inputs)%size != 0 {
		return bad(fmt.Sprintf("%d images of %d bytes", len(c.Labels), size), fmt.Sprintf("%d bytes", len(c.Inputs)))
	}
	for i, label := range c.Labels {
		if label < 0 || int(label) >= len(c.ClassNames) {
			return bad(fmt.Sprintf("labels from 0 to %d", len(c.ClassNames)-1), fmt.Sprintf("label %d of example %d", label, i))
		}
	}
	return nil
}

// shared is what all views of the same examples have in common.
type shared struct {
	Contents
	tensors func() [2]*tensors.Tensor // inputs, labels
	digest  func() string
}

func share(c Contents) *shared {
	s := &shared{Contents: c}
	s.tensors = sync.OnceValue(func() [2]*tensors.Tensor {
		n := len(c.Labels)
		return [2]*tensors.Tensor{
			tensors.FromFlatDataAndDimensions(c.Inputs, n, c.Height, c.Width, c.Channels),
			tensors.FromFlatDataAndDimensions(c.Labels, n),
		}
	})
	s.digest = sync.OnceValue(func() string { return digest(&s.Contents) })
	return s
}

// Dataset is a view of labelled images in memory, either for training (each epoch in another order, whole batches only) or for
// evaluation (in order, all examples, the last batch may be smaller). It can be used by several goroutines at once.
type Dataset struct {
	data     *shared
	training bool
	batch    int
	seed     int64
	epoch    atomic.Int64 // the one that the next Iter goes through
}

// New returns the data set of c, shuffled by seed when training. A batch of 0 stands for DefaultBatch, or EvaluationBatch when not
// training. The error is a *fault.Error of kind ErrFormat when the parts of c don't fit together.
func New(c Contents, training bool, batch int, seed int64) (*Dataset, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if batch == 0 {
		batch = EvaluationBatch
		if training {
			batch = DefaultBatch
		}
	}
	return &Dataset{data: share(c), training: training, batch: batch, seed: seed}, nil
}

// view returns a copy of d that starts at epoch 0.
func (d *Dataset) view() *Dataset {
	return &Dataset{data: d.data, training: d.training, batch: d.batch, seed: d.seed}
}

// WithBatch returns a view of the same examples in batches of n. It panics when n < 1.
func (d *Dataset) WithBatch(n int) *Dataset {
	if n < 1 {
		panic(&fault.Error{Kind: fault.ErrConfig, File: d.Name(), Expected: "a batch of at least 1 example", Came: strconv.Itoa(n)})
	}
	v := d.view()
	v.batch = n
	return v
}

// WithSeed returns a view of the same examples whose epochs are shuffled by another seed.
func (d *Dataset) WithSeed(seed int64) *Dataset {
	v := d.view()
	v.seed = seed
	return v
}

// Take returns a view of the first n examples, or of all when there are no more. It panics when n < 1. The examples of each data set
// of this module are stored in mixed order, so the first ones are a sample of all classes.
func (d *Dataset) Take(n int) *Dataset {
	if n < 1 {
		panic(&fault.Error{Kind: fault.ErrConfig, File: d.Name(), Expected: "at least 1 example to take", Came: strconv.Itoa(n)})
	}
	v := d.view()
	if n < d.Len() {
		c := d.data.Contents
		c.Inputs, c.Labels = c.Inputs[:n*d.imageSize():n*d.imageSize()], c.Labels[:n:n]
		v.data = share(c)
	}
	return v
}

// Shuffled returns a view of the same examples for training (yes: another order in each epoch, whole batches only) or for evaluation
// (no: in order, all of them).
func (d *Dataset) Shuffled(yes bool) *Dataset {
	v := d.view()
	v.training = yes
	return v
}

// Name implements train.Dataset: the data set and its part, "mnist train".
func (d *Dataset) Name() string { return d.data.Name + " " + d.data.Part }

// ShortName implements train.HasShortName: the part alone.
func (d *Dataset) ShortName() string { return d.data.Part }

// Len returns the number of examples.
func (d *Dataset) Len() int { return len(d.data.Labels) }

// Batch returns the number of examples in a batch: the one asked for, or Len when there are fewer examples.
func (d *Dataset) Batch() int { return min(d.batch, d.Len()) }

// Seed returns the seed that shuffles the epochs.
func (d *Dataset) Seed() int64 { return d.seed }

// Classes returns the number of classes.
func (d *Dataset) Classes() int { return len(d.data.ClassNames) }

// ClassNames returns the names of the classes in the order of the labels.
func (d *Dataset) ClassNames() []string { return append([]string(nil), d.data.ClassNames...) }

// Shape returns height, width and channels of each image.
func (d *Dataset) Shape() []int { return []int{d.data.Height, d.data.Width, d.data.Channels} }

func (d *Dataset) imageSize() int { return d.data.Height * d.data.Width * d.data.Channels }

// Label returns the class of example i.
func (d *Dataset) Label(i int) int { return int(d.data.Labels[i]) }

// Image returns example i as a picture of its own: gray for one channel, colour for three. Other channels are laid out one below the
// other, in gray.
func (d *Dataset) Image(i int) image.Image {
	h, w, c := d.data.Height, d.data.Width, d.data.Channels
	pixels := d.data.Inputs[i*d.imageSize() : (i+1)*d.imageSize()]
	if c == 3 {
		m := image.NewNRGBA(image.Rect(0, 0, w, h))
		for p := range h * w {
			copy(m.Pix[4*p:], pixels[3*p:3*p+3])
			m.Pix[4*p+3] = 255
		}
		return m
	}
	m := image.NewGray(image.Rect(0, 0, w, h*c))
	for p := range h * w {
		for k := range c {
			m.Pix[k*h*w+p] = pixels[c*p+k]
		}
	}
	return m
}

// String describes the data set in a line.
func (d *Dataset) String() string {
	return fmt.Sprintf("%s: %d examples, %dx%dx%d, %d classes, batch %d", d.Name(), d.Len(), d.data.Height, d.data.Width, d.data.Channels,
		d.Classes(), d.Batch())
}

// Digest returns the SHA-256, in hexadecimal, of the examples: shape, classes, inputs and labels. Batch and seed are no part of it.
func (d *Dataset) Digest() string { return d.data.digest() }

func digest(c *Contents) string {
	h := sha256.New()
	for _, dim := range []int{len(c.Labels), c.Height, c.Width, c.Channels, len(c.ClassNames)} {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(dim)))
	}
	for _, name := range c.ClassNames {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(name))))
		h.Write([]byte(name))
	}
	labels := make([]byte, 0, 4*len(c.Labels))
	for _, label := range c.Labels {
		labels = binary.LittleEndian.AppendUint32(labels, uint32(label))
	}
	h.Write(labels)
	h.Write(c.Inputs)
	return hex.EncodeToString(h.Sum(nil))
}

// Arrays returns all examples as they are stored: inputs, uint8 [n, height, width, channels], and labels, int32 [n]. They belong to
// the data set and its views: don't finalize, donate or change them.
func (d *Dataset) Arrays() (inputs, labels *tensors.Tensor) {
	both := d.data.tensors()
	return both[0], both[1]
}

// Order returns the examples of an epoch as indices into Arrays, in order. For training it is a permutation that is a function of
// seed and epoch alone, the same on every machine, cut to whole batches; for evaluation it is 0 to Len-1. The slice is the caller's.
func (d *Dataset) Order(epoch int) []int32 {
	return d.order(epoch, make([]int32, d.Len()))
}

// order writes the order of an epoch over all of what it is given.
func (d *Dataset) order(epoch int, order []int32) []int32 {
	n := len(order)
	for i := range order {
		order[i] = int32(i)
	}
	if !d.training {
		return order
	}
	Shuffle(order, uint64(d.seed), uint64(epoch))
	return order[:n-n%d.Batch()]
}

// Shuffle permutes s by the Fisher-Yates algorithm. It draws from PCG-DXSM by rejection, written out here because math/rand/v2 promises
// the values of its generators for ever, but not those of its Shuffle.
func Shuffle[T any](s []T, seed, stream uint64) {
	source := rand.NewPCG(seed, stream)
	for i := len(s) - 1; i > 0; i-- {
		bound := uint64(i + 1)
		// The lowest 2^64 mod bound values are drawn again: with them the small remainders would come more often. They are below bound, which is told sooner.
		x := source.Uint64()
		for x < bound && x < -bound%bound {
			x = source.Uint64()
		}
		j := x % bound
		s[i], s[j] = s[j], s[i]
	}
}

// scale maps the bytes to [0, 1].
const scale = float32(1.0 / 255)

// decoded holds scale times each byte, exactly what Decode computes.
var decoded = func() (table [256]float32) {
	for i := range table {
		table[i] = float32(i) * scale
	}
	return table
}()

// Decode turns a raw batch, uint8 [batch, height, width, channels], into what a model sees: float32 of the same shape, in [0, 1].
func (d *Dataset) Decode(x *graph.Node) *graph.Node {
	// GoMLX keeps scalar constants per graph, and a cached one can't be used inside the body of a loop that is another function of the
	// same graph. A constant of rank above 0 is made anew.
	ones := make([]int, x.Rank())
	for i := range ones {
		ones[i] = 1
	}
	factor := graph.ConstTensor(x.Graph(), tensors.FromFlatDataAndDimensions([]float32{scale}, ones...))
	return graph.Mul(graph.ConvertDType(x, dtypes.Float32), factor)
}

// Iter implements train.Dataset: one epoch in batches of decoded inputs, float32 [batch, height, width, channels], and labels, int32
// [batch, 1] as GoMLX's sparse losses want them. Each call on a training set goes through the next epoch, the first one through epoch
// 0. The tensors are made for each batch, and are the caller's.
func (d *Dataset) Iter() iter.Seq2[train.Batch, error] {
	return d.Epoch(int(d.epoch.Add(1) - 1))
}

// orders are done with, and serve the next epoch of as many examples: who takes a batch now and then of another epoch each would else have memory cleared for it each time.
var orders sync.Pool

// Epoch is Iter for a given epoch, and leaves it to the caller to count them.
func (d *Dataset) Epoch(epoch int) iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		whole, _ := orders.Get().(*[]int32)
		if whole == nil || len(*whole) != d.Len() {
			fresh := make([]int32, d.Len())
			whole = &fresh
		}
		defer orders.Put(whole)
		order := d.order(epoch, *whole)
		for len(order) > 0 {
			n := min(d.Batch(), len(order))
			batch, err := d.assemble(order[:n])
			if !yield(batch, err) || err != nil {
				return
			}
			order = order[n:]
		}
	}
}

// assemble gathers and decodes the given examples.
func (d *Dataset) assemble(examples []int32) (train.Batch, error) {
	n, size := len(examples), d.imageSize()
	inputs := tensors.FromShape(shapes.Make(dtypes.Float32, n, d.data.Height, d.data.Width, d.data.Channels))
	err := tensors.MutableFlatData(inputs, func(flat []float32) {
		for i, example := range examples {
			row := d.data.Inputs[int(example)*size:][:size]
			out := flat[i*size:][:len(row)]
			for k, v := range row {
				out[k] = decoded[v]
			}
		}
	})
	if err != nil {
		return train.Batch{}, err
	}
	labels := tensors.FromShape(shapes.Make(dtypes.Int32, n, 1))
	err = tensors.MutableFlatData(labels, func(flat []int32) {
		for i, example := range examples {
			flat[i] = d.data.Labels[example]
		}
	})
	if err != nil {
		return train.Batch{}, err
	}
	return train.Batch{Inputs: []*tensors.Tensor{inputs}, Labels: []*tensors.Tensor{labels}}, nil
}
