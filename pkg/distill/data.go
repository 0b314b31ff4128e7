package distill

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
)

// resident is experiment.Resident, which this package must not import.
type resident interface {
	train.Dataset
	Arrays() (inputs, labels *tensors.Tensor)
	Order(epoch int) []int32
	Batch() int
	Decode(x *graph.Node) *graph.Node
}

// examples returns how a data set's batches are decoded and the shape of one, not decoded.
func examples(ds train.Dataset) (decode func(*graph.Node) *graph.Node, shape shapes.Shape, err error) {
	if r, ok := ds.(resident); ok {
		inputs, labels := r.Arrays()
		shape = inputs.Shape().Clone()
		n := shape.Dimensions[0]
		if n == 0 || r.Batch() < 1 {
			return nil, shape, &ConfigError{"Config.Train", fmt.Sprintf("%s has %d examples and a batch of %d", r.Name(), n, r.Batch()), "give data with at least one example"}
		}
		if l := labels.Shape(); l.DType != dtypes.Int32 || l.Size() != n {
			return nil, shape, &ConfigError{"Config.Train", fmt.Sprintf("%s has labels %s for %d examples", r.Name(), l, n), "give data whose labels are class numbers, int32 [n]"}
		}
		shape.Dimensions[0] = min(n, r.Batch())
		return r.Decode, shape, nil
	}
	for batch, err := range ds.Iter() {
		if err != nil {
			return nil, shape, fmt.Errorf("data set %q: %w", ds.Name(), err)
		}
		if err := classLabels(ds, batch); err != nil {
			return nil, shape, err
		}
		shape = batch.Inputs[0].Shape().Clone()
		return func(x *graph.Node) *graph.Node { return x }, shape, batch.Finalize()
	}
	return nil, shape, &ConfigError{"Config.Train", fmt.Sprintf("%s has no batches", ds.Name()), "give data with at least one example"}
}

// classLabels returns an error unless a batch has one input, and a class number for each example.
func classLabels(ds train.Dataset, batch train.Batch) error {
	if len(batch.Inputs) == 1 && len(batch.Labels) == 1 && batch.Labels[0].DType() == dtypes.Int32 && batch.Inputs[0].Rank() > 0 &&
		batch.Labels[0].Shape().Size() == batch.Inputs[0].Shape().Dimensions[0] {
		return nil
	}
	var came []string
	for _, x := range append(batch.Inputs, batch.Labels...) {
		came = append(came, x.Shape().String())
	}
	return &ConfigError{"Config.Train", fmt.Sprintf("batches of %s are %v", ds.Name(), came), "make it yield one input [batch, …] and one array of class numbers, int32 [batch, 1]"}
}

// label returns the data set with the teachers' answers as further labels.
func (t *Taught) label(ctx context.Context, cfg Config, raw shapes.Shape) (train.Dataset, error) {
	if r, ok := cfg.Train.(resident); ok {
		return t.cache(ctx, cfg, r)
	}
	s := &streamed{Dataset: cfg.Train, taught: t}
	h := sha256.New()
	for i, l := range t.teachers {
		fmt.Fprintln(h, i, l.Name, t.said(i), t.weights[i])
		if err := l.identity(cfg.Backend, h, raw); err != nil {
			return nil, err
		}
	}
	s.digest = digestOf(cfg.Train, hex.EncodeToString(h.Sum(nil)))
	if of, ok := cfg.Train.(epochal); ok {
		return &streamedEpochs{s, of}, nil
	}
	return s, nil
}

// digestOf is a data set's own digest, if it has one, with more.
func digestOf(ds train.Dataset, more string) string {
	own := ds.Name()
	if d, ok := ds.(interface{ Digest() string }); ok {
		own = d.Digest()
	}
	sum := sha256.Sum256([]byte("taught\n" + own + "\n" + more))
	return hex.EncodeToString(sum[:])
}

// cached is a data set in memory with the teachers' answers.
type cached struct {
	resident
	labels *tensors.Tensor // float32 [n, 1 + width]
	digest string
	batch  *gatherer
	epoch  atomic.Int64 // the one that the next Iter goes through
}

// cache runs the teachers over all examples.
func (t *Taught) cache(ctx context.Context, cfg Config, r resident) (*cached, error) {
	inputs, labels := r.Arrays()
	n, columns := inputs.Shape().Dimensions[0], 1+t.width
	limit := cfg.Limit
	if limit == 0 {
		limit = 1 << 30
	}
	if bytes := 4 * int64(n) * int64(columns); bytes > limit {
		return nil, &TooLargeError{r.Name(), n, bytes, limit}
	}
	wide := make([]float32, n*columns)
	var wrong error
	if err := labels.ConstFlatData(func(all any) {
		for i, class := range all.([]int32) {
			if wrong == nil {
				wrong = t.classless(r.Name(), i, class)
			}
			wide[i*columns] = float32(class) // exact
		}
	}); err != nil || wrong != nil {
		return nil, firstOf(err, wrong)
	}
	size := asked(inputs.Shape())
	asks, done := 0, 0
	for i := range t.teachers {
		if len(t.said(i)) > 0 {
			asks++
		}
	}
	at := 1
	for i, l := range t.teachers {
		width := 0
		for _, lecture := range t.lectures {
			if lecture.teacher == i {
				width += lecture.end - lecture.start
			}
		}
		if width == 0 {
			continue
		}
		for start := 0; start < n; start += size {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			part, err := rows(inputs, start, min(size, n-start))
			if err != nil {
				return nil, err
			}
			answers, err := l.answer(part)
			if err != nil {
				return nil, err
			}
			for k := 0; k*width < len(answers); k++ {
				copy(wide[(start+k)*columns+at:], answers[k*width:(k+1)*width])
			}
			if done += len(answers) / width; cfg.Progress != nil {
				cfg.Progress(done, asks*n, l.Name)
			}
		}
		at += width
	}
	h := sha256.New()
	for _, x := range wide {
		h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(x)))
	}
	c := &cached{resident: r, labels: tensors.FromFlatDataAndDimensions(wide, n, columns), digest: digestOf(r, hex.EncodeToString(h.Sum(nil)))}
	c.batch = &gatherer{backend: cfg.Backend, from: c}
	return c, nil
}

// classless returns a *ConfigError for a label that is no class. GoMLX's loss takes it for an example without one.
func (t *Taught) classless(data string, example int, class int32) error {
	if class >= 0 && class <= 1<<24 && (!t.numbered || int(class) < t.classes) {
		return nil
	}
	return &ConfigError{"Config.Train", fmt.Sprintf("example %d of %s has the label %d, and the student %d logits", example, data, class, t.classes), "number the classes from 0, below the number of logits and 2^24"}
}

// asked is how many examples of a shape [n, …] a teacher gets at a time: enough to keep the device busy, and fewer of large examples. Where it can it divides n: a last batch of another
// size would be compiled apart.
func asked(examples shapes.Shape) int {
	n := examples.Dimensions[0]
	most := min(n, max(16, min(1000, 1<<22/max(1, examples.Size()/n))))
	for size := most; size > most/2; size-- {
		if n%size == 0 {
			return size
		}
	}
	return most
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// rows copies examples: [n, …] -> [size, …].
func rows(all *tensors.Tensor, start, size int) (*tensors.Tensor, error) {
	shape := all.Shape().Clone()
	n := shape.Dimensions[0]
	shape.Dimensions[0] = size
	part := tensors.FromShape(shape)
	var inner error
	err := all.ConstBytes(func(data []byte) {
		row := len(data) / n
		inner = part.MutableBytes(func(into []byte) { copy(into, data[start*row:]) })
	})
	return part, firstOf(err, inner)
}

// Arrays implements experiment.Resident: the labels are those of the data and the teachers' answers, float32 [n, 1 + width].
func (c *cached) Arrays() (inputs, labels *tensors.Tensor) {
	inputs, _ = c.resident.Arrays()
	return inputs, c.labels
}

// Digest identifies the examples with the teachers' answers.
func (c *cached) Digest() string { return c.digest }

// Iter implements train.Dataset: an epoch, each time the next, in batches of decoded inputs.
func (c *cached) Iter() iter.Seq2[train.Batch, error] { return c.Epoch(int(c.epoch.Add(1) - 1)) }

// Epoch is Iter for a given epoch.
func (c *cached) Epoch(epoch int) iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		order := c.Order(epoch)
		for len(order) > 0 {
			n := min(c.Batch(), len(order))
			batch, err := c.batch.gather(order[:n])
			if !yield(batch, err) || err != nil {
				return
			}
			order = order[n:]
		}
	}
}

// streamed is a data set whose batches the teachers answer to one by one.
type streamed struct {
	train.Dataset
	taught *Taught
	digest string
}

// Digest identifies the data set and the teachers.
func (s *streamed) Digest() string { return s.digest }

// Iter implements train.Dataset.
func (s *streamed) Iter() iter.Seq2[train.Batch, error] { return s.answered(s.Dataset.Iter()) }

// epochal is a data set whose batches are a function of the epoch.
type epochal interface {
	Epoch(epoch int) iter.Seq2[train.Batch, error]
}

// streamedEpochs is streamed for such a data set, and one itself: what looks at data beside the training leaves its epochs alone.
type streamedEpochs struct {
	*streamed
	of epochal
}

// Epoch is Iter for a given epoch.
func (s *streamedEpochs) Epoch(epoch int) iter.Seq2[train.Batch, error] {
	return s.answered(s.of.Epoch(epoch))
}

// answered yields batches with the teachers' answers.
func (s *streamed) answered(batches iter.Seq2[train.Batch, error]) iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for batch, err := range batches {
			if err == nil {
				err = guard.Run("distill", func() error { return s.widen(&batch) })
			}
			if !yield(batch, err) || err != nil {
				return
			}
		}
	}
}

// widen puts the teachers' answers beside a batch's labels.
func (s *streamed) widen(batch *train.Batch) error {
	if err := classLabels(s.Dataset, *batch); err != nil {
		return err
	}
	t := s.taught
	classes, err := tensors.CopyFlatData[int32](batch.Labels[0])
	if err != nil {
		return err
	}
	n, columns := len(classes), 1+t.width
	wide := make([]float32, n*columns)
	for i, class := range classes {
		if err := t.classless("a batch of "+s.Name(), i, class); err != nil {
			return err
		}
		wide[i*columns] = float32(class)
	}
	at := 1
	for i, l := range t.teachers {
		if len(t.said(i)) == 0 {
			continue
		}
		x, err := batch.Inputs[0].LocalClone() // the batch's own belongs to the training step
		if err != nil {
			return err
		}
		answers, err := l.answer(x)
		if err != nil {
			return err
		}
		width := len(answers) / n
		for k := range n {
			copy(wide[k*columns+at:], answers[k*width:(k+1)*width])
		}
		at += width
	}
	if err := batch.Labels[0].FinalizeAll(); err != nil {
		return err
	}
	batch.Labels[0] = tensors.FromFlatDataAndDimensions(wide, n, columns)
	return nil
}
