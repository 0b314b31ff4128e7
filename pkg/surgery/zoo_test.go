package surgery

import (
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/attention"
	"github.com/gomlx/gomlx/ml/layers/attention/pos"
	"github.com/gomlx/gomlx/ml/layers/lstm"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

var relu = activation.Relu

func conv(s *model.Scope, x *Node, channels, size, stride int) *Node {
	return layers.Convolution(s, x).Channels(channels).KernelSize(size).Strides(stride).PadSame().UseBias(false).Done()
}

// groupedConv has a kernel of its own, because layers.Convolution makes one of another shape than groups need.
func groupedConv(s *model.Scope, x *Node, channels, groups int) *Node {
	w := s.VariableWithShape("weights", float(3, 3, x.Shape().Dim(-1)/groups, channels))
	return Convolve(x, w.NodeValue(x.Graph())).PadSame().ChannelGroupCount(groups).Done()
}

func batchNorm(s *model.Scope, x *Node) *Node { return norm.BatchNorm(s, x, -1).Done() }

// resNet is a ResNet-20 whose shortcuts are 1×1 convolutions, or slices with channels of zeros around them, by Pad or by Concatenate.
func resNet(shortcut string) trace.ModelFn {
	return trace.Single(func(s *model.Scope, x *Node) *Node {
		x = relu(batchNorm(s.In("b0"), conv(s.In("c0"), x, 8, 3, 1)))
		for i, c := range []int{8, 16, 32} {
			for j := range 2 {
				b := s.In("s%d_%d", i, j)
				stride := 1
				if i > 0 && j == 0 {
					stride = 2
				}
				y := relu(batchNorm(b.In("b1"), conv(b.In("c1"), x, c, 3, stride)))
				y = batchNorm(b.In("b2"), conv(b.In("c2"), y, c, 3, 1))
				if stride == 2 {
					half := func() *Node {
						return Slice(x, AxisRange(), AxisRange().Stride(2), AxisRange().Stride(2), AxisRange())
					}
					switch shortcut {
					case "conv":
						x = batchNorm(b.In("bs"), conv(b.In("cs"), x, c, 1, 2))
					case "pad":
						x = Pad(half(), ScalarZero(x.Graph(), x.DType()), PadAxis{}, PadAxis{}, PadAxis{}, PadAxis{Start: c / 4, End: c / 4})
					case "concat":
						x = half()
						z := x.Shape().Clone()
						z.Dimensions[3] = c / 4
						x = Concatenate([]*Node{Zeros(x.Graph(), z), x, Zeros(x.Graph(), z)}, -1)
					}
				}
				x = relu(Add(x, y))
			}
		}
		return layers.Dense(s.In("fc"), ReduceMean(x, 1, 2), true, 10)
	})
}

func denseNet(s *model.Scope, x *Node) *Node {
	x = conv(s.In("c0"), x, 12, 3, 1)
	for i := range 3 {
		b := s.In("d%d", i)
		x = Concatenate([]*Node{x, conv(b.In("c"), relu(batchNorm(b, x)), 8, 3, 1)}, -1)
	}
	x = MeanPool(conv(s.In("t"), relu(batchNorm(s.In("tb"), x)), 20, 1, 1)).Window(2).Done()
	a := relu(conv(s.In("i1"), x, 6, 1, 1)) // inception
	b := relu(conv(s.In("i3"), relu(conv(s.In("i3r"), x, 4, 1, 1)), 8, 3, 1))
	p := relu(conv(s.In("ip"), MaxPool(x).Window(3).Strides(1).PadSame().Done(), 5, 1, 1))
	x = Concatenate([]*Node{a, b, p}, -1)
	x = Add(x, conv(s.In("res"), x, 19, 3, 1))
	return layers.Dense(s.In("fc"), ReduceMean(x, 1, 2), true, 10)
}

func mobileNet(dropout bool) trace.ModelFn {
	return trace.Single(func(s *model.Scope, x *Node) *Node {
		x = relu(batchNorm(s.In("b0"), conv(s.In("c0"), x, 16, 3, 2)))
		for i, c := range []int{24, 24} {
			b := s.In("ir%d", i)
			in := x.Shape().Dim(-1)
			y := relu(batchNorm(b.In("be"), conv(b.In("e"), x, in*3, 1, 1)))
			y = relu(batchNorm(b.In("bd"), groupedConv(b.In("dw"), y, in*3, in*3)))
			se := relu(layers.Dense(b.In("se1"), ReduceMean(y, 1, 2), true, 8)) // squeeze and excite
			y = Mul(y, InsertAxes(Sigmoid(layers.Dense(b.In("se2"), se, true, in*3)), 1, 1))
			y = batchNorm(b.In("bp"), conv(b.In("p"), y, c, 1, 1))
			if c == in {
				y = Add(y, x)
			}
			x = y
		}
		y := relu(groupedConv(s.In("gg"), relu(conv(s.In("g1"), x, 32, 1, 1)), 32, 4))
		x = Add(x, conv(s.In("g2"), y, 24, 1, 1))
		x = ReduceMean(x, 1, 2)
		if dropout {
			x = layers.DropoutStatic(s.In("drop"), x, 0.1)
		}
		return layers.Dense(s.In("fc"), x, true, 10)
	})
}

func transformer(kind string) trace.ModelFn {
	return trace.Single(func(s *model.Scope, x *Node) *Node {
		x = layers.Dense(s.In("emb"), x, true, 32)
		for i := range 2 {
			b := s.In("blk%d", i)
			h := norm.LayerNorm(b.In("ln1"), x, -1).Done()
			if kind == "flat" { // projections that are not divided into heads, as in PyTorch
				batch, steps := h.Shape().Dim(0), h.Shape().Dim(1)
				heads := func(y *Node) *Node { return TransposeAllAxes(Reshape(y, batch, steps, 4, 8), 0, 2, 1, 3) }
				q, k, v := heads(layers.Dense(b.In("q"), h, true, 32)), heads(layers.Dense(b.In("k"), h, true, 32)), heads(layers.Dense(b.In("v"), h, true, 32))
				w := Softmax(MulScalar(Einsum("bhqd,bhkd->bhqk", q, k), 0.35), -1)
				h = Reshape(TransposeAllAxes(Einsum("bhqk,bhkd->bhqd", w, v), 0, 2, 1, 3), batch, steps, 32)
				h = layers.Dense(b.In("o"), h, true, 32)
			} else {
				m := attention.SelfAttention(b.In("att"), h, 4, 8).WithCausalMask(true)
				if kind == "grouped-query" {
					m = m.WithNumKVHeads(2)
				}
				h = m.Done()
			}
			x = Add(x, h)
			h = norm.LayerNorm(b.In("ln2"), x, -1).Done()
			x = Add(x, layers.Dense(b.In("m2"), activation.Gelu(layers.Dense(b.In("m1"), h, true, 64)), true, 32))
		}
		return layers.Dense(s.In("fc"), ReduceMean(x, 1), true, 10)
	})
}

// shuffleNet has groups whose channels are shuffled.
func shuffleNet(s *model.Scope, x *Node) *Node {
	x = relu(conv(s.In("c0"), x, 24, 3, 1))
	y := groupedConv(s.In("g1"), x, 24, 3)
	d := y.Shape().Dimensions
	y = Reshape(TransposeAllAxes(Reshape(y, d[0], d[1], d[2], 3, 8), 0, 1, 2, 4, 3), d[0], d[1], d[2], 24)
	y = groupedConv(s.In("g2"), groupedConv(s.In("dw"), relu(y), 24, 24), 24, 3)
	return layers.Dense(s.In("fc"), ReduceMean(relu(Add(x, y)), 1, 2), true, 10)
}

// splitNet sends a part of the channels past a layer.
func splitNet(s *model.Scope, x *Node) *Node {
	x = relu(conv(s.In("c0"), x, 24, 3, 1))
	part := func(from, to int) *Node { return Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(from, to)) }
	x = Concatenate([]*Node{relu(conv(s.In("c1"), part(10, 24), 14, 3, 1)), part(0, 10)}, -1)
	x = Add(x, conv(s.In("c2"), x, 24, 1, 1))
	return layers.Dense(s.In("fc"), ReduceMax(x, 1, 2), true, 10)
}

func groupNorm(s *model.Scope, x *Node) *Node {
	x = conv(s.In("c0"), x, 24, 3, 1)
	d := x.Shape().Dimensions
	y := Reshape(x, d[0], d[1]*d[2], 4, 6)
	y = Sub(y, ReduceAndKeep(y, ReduceMean, 1, 3))
	y = Div(y, Sqrt(AddScalar(ReduceAndKeep(Square(y), ReduceMean, 1, 3), 1e-5)))
	x = relu(conv(s.In("c1"), relu(Reshape(y, d...)), 16, 3, 1))
	return layers.Dense(s.In("fc"), ReduceMean(x, 1, 2), true, 10)
}

// uNet goes down and up again, and ends in a pixel shuffle.
func uNet(s *model.Scope, x *Node) *Node {
	a := relu(conv(s.In("d0"), x, 8, 3, 1))
	b := relu(conv(s.In("d1"), a, 16, 3, 2))
	d := b.Shape().Dimensions
	up := Reshape(BroadcastToDims(InsertAxes(b, 2, 3), d[0], d[1], 2, d[2], 2, d[3]), d[0], 2*d[1], 2*d[2], d[3])
	x = relu(conv(s.In("m"), Concatenate([]*Node{a, conv(s.In("u"), up, 8, 3, 1)}, -1), 12, 3, 1))
	x = conv(s.In("ps"), x, 16, 3, 1)
	d = x.Shape().Dimensions
	x = Reshape(TransposeAllAxes(Reshape(x, d[0], d[1], d[2], 2, 2, 4), 0, 1, 3, 2, 4, 5), d[0], d[1]*2, d[2]*2, 4)
	return conv(s.In("o"), relu(x), 1, 3, 1)
}

// language is a block of a language model: tied embeddings, one projection for queries, keys and values, rotary positions, RMS normalisation, gated activations.
func language(s *model.Scope, x *Node) *Node {
	tokens := MinScalar(InsertAxes(ConvertDType(Abs(MulScalar(x, 5)), dtypes.Int32), -1), 31)
	x = layers.Embedding(s.In("emb"), tokens, dtypes.Float32, 32, 24)
	b := s.In("b0")
	h := norm.RMSNorm(b.In("n1"), x).Done()
	x = Add(x, attention.SelfAttention(b.In("att"), h, 4, 6).UseQKVProjection().WithPositionalEncoder(pos.NewRoPE(10000)).WithCausalMask(true).Done())
	h = norm.RMSNorm(b.In("n2"), x).Done()
	g := activation.Swish(layers.DenseWithLayout(b.In("g"), h, compute.DenseLayoutOutputsInput, false, 40))
	x = Add(x, layers.Dense(b.In("o"), Mul(g, layers.Dense(b.In("u"), h, false, 40)), false, 24))
	table := s.Store().GetVariable("/emb/embeddings/embeddings")
	for v := range s.Store().IterVariables() {
		if table == nil && v.Shape().Equal(float(32, 24)) {
			table = v
		}
	}
	return Einsum("bsd,vd->bsv", x, table.NodeValue(x))
}

func longShortTerm(s *model.Scope, x *Node) *Node {
	e := layers.Dense(s.In("e"), x, true, 20)
	_, last, _ := lstm.New(s.In("l"), e, 16).Done()
	return layers.Dense(s.In("fc"), Reshape(last, x.Shape().Dim(0), 16), true, 10)
}

// straightThrough has a gradient of its own, and one that is stopped.
func straightThrough(s *model.Scope, x *Node) *Node {
	x = layers.Dense(s.In("a"), x, true, 16)
	x = IdentityWithCustomGradient(x, func(x, v *Node) *Node { return MulScalar(v, 3) })
	return layers.Dense(s.In("b"), Add(Tanh(x), StopGradient(Sign(x))), true, 4)
}

// Each network becomes smaller, and computes what the masked one does.
func TestZoo(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		name   string
		fn     trace.ModelFn
		groups int
		dims   []int
	}{
		{"ResNet, shortcuts of 1×1", resNet("conv"), 9, []int{8, 8, 3}},
		{"ResNet, shortcuts of padding", resNet("pad"), 9, []int{8, 8, 3}},
		{"ResNet, shortcuts of zeros", resNet("concat"), 9, []int{8, 8, 3}},
		{"DenseNet and Inception", trace.Single(denseNet), 9, []int{8, 8, 3}},
		{"MobileNet, squeeze and excite, groups", mobileNet(false), 9, []int{8, 8, 3}},
		{"dropout", mobileNet(true), 9, []int{8, 8, 3}},
		{"multi-head attention", transformer("multi-head"), 8, []int{5, 12}},
		{"grouped-query attention", transformer("grouped-query"), 10, []int{5, 12}},
		{"attention of flat projections", transformer("flat"), 8, []int{5, 12}},
		{"channel shuffle", trace.Single(shuffleNet), 1, []int{8, 8, 3}},
		{"split and concatenate", trace.Single(splitNet), 3, []int{8, 8, 3}},
		{"group normalisation by reshaping", trace.Single(groupNorm), 2, []int{8, 8, 3}},
		{"U-Net and pixel shuffle", trace.Single(uNet), 5, []int{8, 8, 3}},
		{"language model", trace.Single(language), 5, []int{5}},
		{"LSTM", trace.Single(longShortTerm), 2, []int{4, 6}},
		{"straight-through gradient", trace.Single(straightThrough), 1, []int{6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, _ := proveGradient(t, b, c.fn, !strings.Contains(c.name, "padding"), c.dims...) // Pad has no gradient
			if len(n.Groups()) != c.groups {
				t.Errorf("%d groups, want %d:\n%s", len(n.Groups()), c.groups, n)
			}
		})
	}
}
