package onnx

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
)

// size is the size of an axis at each batch size that was recorded.
type size = []int

// fixed tells whether an axis has the same size at all of them.
func fixed(d size) bool {
	return !slices.ContainsFunc(d, func(n int) bool { return n != d[0] })
}

// one is the size of an axis that nothing lies along.
func one(d size) bool { return fixed(d) && d[0] == 1 }

func product(all ...size) size {
	p := slices.Clone(all[0])
	for _, d := range all[1:] {
		for i := range p {
			p[i] *= d[i]
		}
	}
	return p
}

// value is something in the ONNX graph: an input, a constant, or what a node computes.
type value struct {
	name     string
	constant *constant // nil if it is none
	from     *node     // nil if no node computes it
	dtype    dtypes.DType
	dims     []size
}

// node is an operation of the ONNX graph.
type node struct {
	op         string
	inputs     []*value // nil: left out
	output     *value
	attributes []attribute
}

// placed is a value of the trace, and where its elements lie in ONNX's graph. ONNX has the channels first where GoMLX mostly has them last, and repeats axes by itself
// where GoMLX asks for it: so Transpose and BroadcastInDim change what is written here, and nodes for them are made only where an operation can do with no other order.
type placed struct {
	at       *value    // nil for a constant, of which there may be several, in other orders
	constant *constant // its dims are those of the placed value, and 1 where it repeats
	dtype    dtypes.DType
	dims     []size
	order    []int  // axis i in ONNX is axis order[i] in GoMLX; of constants, which are put in any order when they are used, the identity
	repeats  []bool // by axis in GoMLX: it has size 1 in ONNX, and dims say how often it is repeated
}

func identity(rank int) []int {
	order := make([]int, rank)
	for i := range order {
		order[i] = i
	}
	return order
}

func (p *placed) rank() int { return len(p.dims) }

// stored is the size of an axis of GoMLX in ONNX.
func (p *placed) stored(axis int) size {
	if p.repeats[axis] {
		return slices.Repeat(size{1}, len(p.dims[axis]))
	}
	return p.dims[axis]
}

// position is where an axis of GoMLX lies in ONNX.
func (p *placed) position(axis int) int { return slices.Index(p.order, axis) }

func (p *placed) anyRepeats() bool { return slices.Contains(p.repeats, true) }

// place says that a value has all its elements, in an order.
func place(v *value, dims []size, order []int) *placed {
	return &placed{at: v, dtype: v.dtype, dims: dims, order: order, repeats: make([]bool, len(dims))}
}

// placeConstant says so of a constant.
func (w *writer) placeConstant(c *constant) *placed {
	p := &placed{constant: c, dtype: c.dtype, order: identity(len(c.dims)), repeats: make([]bool, len(c.dims))}
	for _, n := range c.dims {
		p.dims = append(p.dims, slices.Repeat(size{n}, len(w.traces)))
	}
	return p
}

// inOrder returns a value with its axes in an order; those that repeat have size 1.
func (w *writer) inOrder(p *placed, order []int) (*value, error) {
	if p.constant != nil {
		return w.initializer(p.constant, order), nil
	}
	if slices.Equal(order, p.order) {
		return p.at, nil
	}
	moves := make([]int64, len(order))
	dims := make([]size, len(order))
	var before, after []int // axes that something lies along
	for i, axis := range order {
		moves[i] = int64(p.position(axis))
		dims[i] = p.stored(axis)
		if !one(dims[i]) {
			after = append(after, axis)
		}
		if !one(p.stored(p.order[i])) {
			before = append(before, p.order[i])
		}
	}
	key := fmt.Sprint(moves)
	if done := w.moved[p.at][key]; done != nil {
		return done, nil
	}
	var v *value
	if slices.Equal(before, after) {
		var err error
		if v, err = w.reshape(p.at, dims); err != nil {
			return nil, err
		}
	} else {
		v = w.node("Transpose", []*value{p.at}, p.dtype, dims, attribute{name: "perm", ints: moves})
	}
	if w.moved[p.at] == nil {
		w.moved[p.at] = map[string]*value{}
	}
	w.moved[p.at][key] = v
	return v, nil
}

// full returns a value with its axes in an order and all its elements.
func (w *writer) full(p *placed, order []int) (*value, error) {
	if !p.anyRepeats() {
		return w.inOrder(p, order)
	}
	dims := make([]size, len(order))
	all := true
	for i, axis := range order {
		dims[i] = p.dims[axis]
		all = all && fixed(dims[i])
	}
	if p.constant != nil && all && sizeOf(first(dims)) <= 1<<12 { // small ones are simpler written out
		c := p.constant.permute(order)
		return w.initializer(c.expand(first(dims)), identity(len(dims))), nil
	}
	v, err := w.inOrder(p, order)
	if err != nil {
		return nil, err
	}
	target := make([]size, len(order)) // 1 where the value has the size already
	for i, axis := range order {
		target[i] = slices.Repeat(size{1}, len(w.traces))
		if p.repeats[axis] {
			target[i] = p.dims[axis]
		}
	}
	shape, err := w.shape(target)
	if err != nil {
		return nil, err
	}
	return w.node("Expand", []*value{v, shape}, p.dtype, dims), nil
}

func first(dims []size) []int {
	d := make([]int, len(dims))
	for i := range dims {
		d[i] = dims[i][0]
	}
	return d
}

// shape returns sizes as a value that nodes such as Expand take.
func (w *writer) shape(dims []size) (*value, error) {
	var parts []*value
	var run []int64
	flush := func() {
		if len(run) > 0 {
			parts = append(parts, w.initializer(int64s(run...), []int{0}))
			run = nil
		}
	}
	for _, d := range dims {
		if fixed(d) {
			run = append(run, int64(d[0]))
			continue
		}
		flush()
		n, err := w.sizeValue(d)
		if err != nil {
			return nil, err
		}
		parts = append(parts, n)
	}
	flush()
	switch len(parts) {
	case 0:
		return w.initializer(int64s(), []int{0}), nil
	case 1:
		return parts[0], nil
	}
	return w.node("Concat", parts, dtypes.Int64, []size{slices.Repeat(size{len(dims)}, len(w.traces))}, attribute{name: "axis"}), nil
}

// sizeValue computes the size of an axis from the batch size, of which it must be a linear function. The value is int64[1].
func (w *writer) sizeValue(d size) (*value, error) {
	per, rest, ok := w.linear(d)
	if !ok {
		return nil, &Error{Kind: ErrShape, Expected: "axes whose size is a multiple of the batch size and a rest", Came: fmt.Sprintf("sizes %v for batches of %v", d, w.batches),
			Remedy: "set Config.FixedBatch"}
	}
	scalar := []size{slices.Repeat(size{1}, len(w.traces))}
	if w.batch == nil {
		w.batch = w.node("Shape", []*value{w.inputs[0]}, dtypes.Int64, scalar, attribute{name: "start"}, attribute{name: "end", i: 1})
	}
	v := w.batch
	if per != 1 {
		v = w.node("Mul", []*value{v, w.initializer(int64s(int64(per)), []int{0})}, dtypes.Int64, scalar)
	}
	if rest != 0 {
		v = w.node("Add", []*value{v, w.initializer(int64s(int64(rest)), []int{0})}, dtypes.Int64, scalar)
	}
	return v, nil
}

// linear finds size = per · batch + rest.
func (w *writer) linear(d size) (per, rest int, ok bool) {
	if fixed(d) {
		return 0, d[0], true
	}
	step := w.batches[1] - w.batches[0]
	if (d[1]-d[0])%step != 0 {
		return 0, 0, false
	}
	per = (d[1] - d[0]) / step
	rest = d[0] - per*w.batches[0]
	for i, n := range d {
		ok = n == per*w.batches[i]+rest
		if !ok {
			break
		}
	}
	return per, rest, ok
}

// reshape returns a value with other dimensions and its elements in the same order.
func (w *writer) reshape(v *value, dims []size) (*value, error) {
	same := func(a, b []size) bool { return slices.EqualFunc(a, b, slices.Equal) }
	if same(v.dims, dims) {
		return v, nil
	}
	if v.constant != nil {
		return w.initializer(v.constant.reshape(first(dims)), identity(len(dims))), nil
	}
	if v.from != nil && v.from.op == "Reshape" { // one is enough
		v = v.from.inputs[0]
		if same(v.dims, dims) {
			return v, nil
		}
	}
	target := make([]int64, len(dims))
	unsettled := -1
	for i, d := range dims {
		switch {
		case fixed(d):
			target[i] = int64(d[0])
		case i < len(v.dims) && slices.Equal(v.dims[i], d):
			target[i] = 0 // as it is
		case unsettled < 0:
			unsettled, target[i] = i, -1
		default:
			shape, err := w.shape(dims)
			if err != nil {
				return nil, err
			}
			return w.node("Reshape", []*value{v, shape}, v.dtype, dims), nil
		}
	}
	return w.node("Reshape", []*value{v, w.initializer(int64s(target...), []int{0})}, v.dtype, dims), nil
}

// block is a run of axes before a reshape that becomes a run of axes after it. Axes of size 1 are in none.
type block struct{ in, out []int }

// blocks divides a reshape into the smallest of them.
func blocks(in, out []size) []block {
	var all []block
	skip := func(dims []size, i int) int {
		for i < len(dims) && one(dims[i]) {
			i++
		}
		return i
	}
	i, j := skip(in, 0), skip(out, 0)
	for i < len(in) && j < len(out) {
		b := block{[]int{i}, []int{j}}
		a, c := in[i], out[j]
		i, j = skip(in, i+1), skip(out, j+1)
		for !slices.Equal(a, c) {
			if i < len(in) && (a[0] < c[0] || j >= len(out)) {
				a = product(a, in[i])
				b.in = append(b.in, i)
				i = skip(in, i+1)
			} else if j < len(out) {
				c = product(c, out[j])
				b.out = append(b.out, j)
				j = skip(out, j+1)
			} else {
				break
			}
		}
		all = append(all, b)
	}
	return all
}

// reshaped is the rule for Reshape: where blocks of axes lie together in ONNX they stay where they are.
func (w *writer) reshaped(p *placed, dims []size) (*placed, error) {
	if slices.EqualFunc(p.dims, dims, slices.Equal) {
		return p, nil
	}
	out := &placed{dtype: p.dtype, dims: dims, order: identity(len(dims)), repeats: make([]bool, len(dims))}
	all := blocks(p.dims, dims)
	mixed := false
	for _, b := range all {
		n := 0
		for _, axis := range b.in {
			if p.repeats[axis] {
				n++
			}
		}
		mixed = mixed || n > 0 && n < len(b.in)
		for _, axis := range b.out {
			out.repeats[axis] = n > 0
		}
	}
	if p.constant != nil {
		c := p.constant
		if mixed {
			if slices.ContainsFunc(p.dims, func(d size) bool { return !fixed(d) }) {
				return nil, &Error{Kind: ErrShape, Expected: "a constant of a fixed size", Came: fmt.Sprintf("sizes %v at batches of %v", p.dims, w.batches), Remedy: "set Config.FixedBatch"}
			}
			c = c.expand(first(p.dims))
			out.repeats = make([]bool, len(dims))
		}
		flat := make([]int, len(dims))
		for i := range dims {
			flat[i] = 1
			if !out.repeats[i] {
				flat[i] = dims[i][0]
			}
		}
		out.constant = c.reshape(flat)
		return out, nil
	}
	if mixed {
		v, err := w.full(p, p.order)
		if err != nil {
			return nil, err
		}
		p = place(v, p.dims, p.order)
		out.repeats = make([]bool, len(dims))
	}
	order, ok := blockOrder(p, all, len(dims))
	if !ok {
		together := joinBlocks(p, all)
		v, err := w.inOrder(p, together)
		if err != nil {
			return nil, err
		}
		moved := *p
		moved.at, moved.order = v, together
		p = &moved
		order, _ = blockOrder(p, all, len(dims)) // now they do
	}
	out.order = order
	stored := make([]size, len(dims))
	for i, axis := range order {
		stored[i] = out.stored(axis)
	}
	v, err := w.reshape(p.at, stored)
	out.at = v
	return out, err
}

// joinBlocks returns an order in which the axes of each block lie together and in order, and which is else as it was.
func joinBlocks(p *placed, all []block) []int {
	var order []int
	for _, axis := range p.order {
		if slices.Contains(order, axis) {
			continue
		}
		at := slices.IndexFunc(all, func(b block) bool { return slices.Contains(b.in, axis) })
		if at < 0 { // of size 1
			order = append(order, axis)
		} else {
			order = append(order, all[at].in...)
		}
	}
	return order
}

// blockOrder returns the order of the axes after a reshape, if the axes of each block lie together and in order in ONNX.
func blockOrder(p *placed, all []block, rank int) ([]int, bool) {
	var stored []int // axes that something may lie along
	for _, axis := range p.order {
		if !one(p.dims[axis]) {
			stored = append(stored, axis)
		}
	}
	var order []int
	for len(stored) > 0 {
		at := slices.IndexFunc(all, func(b block) bool { return b.in[0] == stored[0] })
		if at < 0 || len(stored) < len(all[at].in) || !slices.Equal(stored[:len(all[at].in)], all[at].in) {
			return nil, false
		}
		order = append(order, all[at].out...)
		stored = stored[len(all[at].in):]
	}
	// Axes of size 1 lie anywhere: behind the one that they follow in GoMLX.
	for axis := range rank {
		if slices.Contains(order, axis) {
			continue
		}
		at := 0
		if axis > 0 {
			at = slices.Index(order, axis-1) + 1
		}
		order = slices.Insert(order, at, axis)
	}
	return order, len(order) == rank
}
