package surgery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/zoo"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// some are networks of the zoo, and reference networks.
func some(t *testing.T, names ...string) []zoo.Network {
	t.Helper()
	var all []zoo.Network
	for _, name := range names {
		if i := slices.IndexFunc(zoo.All(), func(n zoo.Network) bool { return n.Name == name }); i >= 0 {
			all = append(all, zoo.All()[i])
			continue
		}
		found, err := nets.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, zoo.Network{Name: name, Model: trace.Single(found.Model), Example: [][]int{found.Input}})
	}
	return all
}

// A function that hands values over and gets them back computes the same, in both phases, with all that the network updates; one that multiplies them by 1, too.
func TestInterceptIdentity(t *testing.T) {
	b := open(t)
	for _, z := range some(t, "LeNet-5", "SmallVGG", "ResNet-20", "densenet", "mobilenet", "dilated, shared") {
		t.Run(z.Name, func(t *testing.T) {
			in := z.Inputs(1, 2)
			store := network(t, b, z.Model, in[0].Shape())
			n, err := Trace(b, store, z.Model, in[0].Shape())
			if err != nil {
				t.Fatal(err)
			}
			var places []string
			same := n.Intercept(func(s Site, x *graph.Node) *graph.Node {
				places = append(places, fmt.Sprint(s.Kernel, s.KernelAxis, s.Use, s.Place))
				if len(s.Operands) != len(s.Op.Node().Inputs()) || x.Shape().Dimensions[s.Axis] != s.Channels {
					t.Errorf("%s: %d operands, axis %d of %s for %d channels", s.Kernel, len(s.Operands), s.Axis, x.Shape(), s.Channels)
				}
				return x
			})
			one := n.Intercept(func(_ Site, x *graph.Node) *graph.Node { return graph.MulScalar(x, 1) })
			for _, training := range []bool{false, true} {
				want, got, scaled := outcome(t, n, z.Model, training, in), outcome(t, n, same, training, in), outcome(t, n, one, training, in)
				for _, g := range []map[string]*tensors.Tensor{got, scaled} {
					for path, w := range want {
						diff, largest, err := difference(w, g[path])
						if err != nil || diff > 1e-6*max(1, largest) {
							t.Errorf("training %v, %s: differs by %g of %g, %v", training, path, diff, largest, err)
						}
					}
				}
			}
			sites := n.Sites()
			if len(places) != 4*len(sites) {
				t.Errorf("handed over %d times in two graphs, want twice for each of %d sites in each", len(places), len(sites))
			}
			slices.Sort(places)
			if count := len(slices.Compact(places)); count != 2*len(sites) {
				t.Errorf("%d different places, want %d", count, 2*len(sites))
			}
			for _, g := range n.Groups() {
				if !eachHasSite(g, sites) {
					t.Errorf("not all that makes %s is handed over", g.Name)
				}
			}
		})
	}
}

// outcome runs a network in a copy of its store, and returns its outputs and all variables.
func outcome(t *testing.T, n *Network, fn trace.ModelFn, training bool, in []*tensors.Tensor) map[string]*tensors.Tensor {
	t.Helper()
	store, err := copyStore(n.store, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*tensors.Tensor{}
	for i, y := range call(t, n.backend, store, fn, training, in...) {
		all[fmt.Sprint("output ", i)] = y
	}
	for v := range store.IterVariables() {
		if v.DType().IsFloat() {
			all[v.Path()] = v.MustValue()
		}
	}
	return all
}

// What is multiplied by zero at the last place is gone, where zeros stay zero: the network computes what it does with the units' weights at zero.
func TestInterceptZeroIsRemoved(t *testing.T) {
	b := open(t)
	for _, z := range some(t, "lenet5", "resnet8 projection", "inception", "channels first", "SmallVGG") {
		t.Run(z.Name, func(t *testing.T) {
			in := z.Inputs(1, 2)
			store := network(t, b, z.Model, in[0].Shape())
			n, err := Trace(b, store, z.Model, in[0].Shape())
			if err != nil {
				t.Fatal(err)
			}
			sites := n.Sites()
			plan := n.Empty()
			zeros := map[string][]float32{} // by place of the kernel
			for _, g := range n.Groups() {
				if !eachHasSite(g, sites) || g.Size < 2 {
					continue
				}
				plan.Removed[g.Name] = []int{0}
				for _, m := range g.Members {
					if m.Role == Makes {
						if zeros[m.Place()] == nil {
							zeros[m.Place()] = slices.Repeat([]float32{1}, n.analysis.shapes[m.Path][m.Axis])
						}
						for _, i := range m.Indices[0] {
							zeros[m.Place()][i] = 0
						}
					}
				}
			}
			masked, err := plan.Masked()
			if err != nil {
				t.Fatal(err)
			}
			gated := n.Intercept(func(s Site, x *graph.Node) *graph.Node {
				keep := zeros[Member{Path: s.Kernel, Axis: s.KernelAxis}.Place()]
				if s.Place != AtLast || keep == nil {
					return x
				}
				dims := slices.Repeat([]int{1}, x.Rank())
				dims[s.Axis] = len(keep)
				return graph.Mul(x, graph.Reshape(graph.Const(x.Graph(), keep), dims...))
			})
			want, got := call(t, b, masked, z.Model, false, in...), call(t, b, store, gated, false, in...)
			for i := range want {
				diff, largest, err := difference(want[i], got[i])
				if err != nil || diff > 1e-5*max(1, largest) {
					t.Errorf("output %d differs by %g of %g, %v", i, diff, largest, err)
				}
			}
		})
	}
}

// eachHasSite tells whether all that makes a group's channels are products that are handed over.
func eachHasSite(g *Group, sites []Site) bool {
	some := false
	for _, m := range g.Members {
		if m.Role == Makes {
			some = true
			if !slices.ContainsFunc(sites, func(s Site) bool { return s.Kernel == m.Path && s.KernelAxis == m.Axis }) {
				return false
			}
		}
	}
	return some
}

func TestSites(t *testing.T) {
	b := open(t)
	for name, want := range map[string]string{
		"LeNet-5": `/conv1/conv/weights:3 of 20
/conv2/conv/weights:3 of 50
/fc1/dense/weights:1 of 500
/output/dense/weights:1 of 10
`,
		"resnet8 projection": `/c0/conv/weights:3 of 8, gain /b0/batch_normalization/scale
/s0_0/c1/conv/weights:3 of 8, gain /s0_0/b1/batch_normalization/scale
/s0_0/c2/conv/weights:3 of 8, gain /s0_0/b2/batch_normalization/scale, joins
/s1_0/c1/conv/weights:3 of 16, gain /s1_0/b1/batch_normalization/scale
/s1_0/c2/conv/weights:3 of 16, gain /s1_0/b2/batch_normalization/scale, joins
/s1_0/cs/conv/weights:3 of 16, gain /s1_0/bs/batch_normalization/scale
/s2_0/c1/conv/weights:3 of 32, gain /s2_0/b1/batch_normalization/scale
/s2_0/c2/conv/weights:3 of 32, gain /s2_0/b2/batch_normalization/scale, joins
/s2_0/cs/conv/weights:3 of 32, gain /s2_0/bs/batch_normalization/scale
/output/dense/weights:1 of 5
`,
		"inception": `/c0/conv/weights:3 of 8
/i1/conv/weights:3 of 6
/i3r/conv/weights:3 of 4
/i3/conv/weights:3 of 8
/ip/conv/weights:3 of 5
/res/conv/weights:3 of 19, joins
/output/dense/weights:1 of 5
`,
		"dilated, shared": `/c0/conv/weights:3 of 10
/again/conv/weights:3 of 10
/again/conv/weights:3 of 10, use 1
/again/conv/weights:3 of 10, use 2
/output/dense/weights:1 of 5
`,
	} {
		z := some(t, name)[0]
		in := z.Inputs(1, 2)[0].Shape()
		n, err := Trace(b, model.NewStore(), z.Model, in)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, s := range n.Sites() {
			fmt.Fprintf(&got, "%s:%d of %d", s.Kernel, s.KernelAxis, s.Channels)
			if s.Use > 0 {
				fmt.Fprintf(&got, ", use %d", s.Use)
			}
			if s.Gain != "" {
				fmt.Fprintf(&got, ", gain %s", s.Gain)
			}
			if s.Joins {
				fmt.Fprint(&got, ", joins")
			}
			fmt.Fprintln(&got)
		}
		if diff := cmp.Diff(want, got.String()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

// A network without a branch has neither its kernels nor its statistics, in both phases, and computes what it does with the branch's last gain and offset at zero.
func TestBypass(t *testing.T) {
	b := open(t)
	z := some(t, "resnet8 projection")[0]
	in := z.Inputs(1, 2)
	store := network(t, b, z.Model, in[0].Shape())
	n, err := Trace(b, store, z.Model, in[0].Shape())
	if err != nil {
		t.Fatal(err)
	}
	var branch Site
	for _, s := range n.Sites() {
		if s.Kernel == "/s1_0/c2/conv/weights" {
			branch = s
		}
	}
	fn, err := n.Bypass(branch)
	if err != nil {
		t.Fatal(err)
	}
	zeroed, err := copyStore(store, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scale", "offset"} {
		v := zeroed.GetVariable("/s1_0/b2/batch_normalization/" + name)
		setValue(t, v, tensors.FromShape(v.Shape()))
	}
	for _, training := range []bool{false, true} {
		want, got := call(t, b, zeroed, z.Model, training, in...), call(t, b, store, fn, training, in...)
		diff, largest, err := difference(want[0], got[0])
		if err != nil || diff > 1e-5*largest {
			t.Errorf("training %v: differs by %g of %g, %v", training, diff, largest, err)
		}
	}
	smaller, err := Trace(b, store, fn, in[0].Shape())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range smaller.analysis.order {
		if strings.HasPrefix(path, "/s1_0/c") && path != "/s1_0/cs/conv/weights" || strings.HasPrefix(path, "/s1_0/b1") || strings.HasPrefix(path, "/s1_0/b2") {
			t.Errorf("the network without the branch still has %s", path)
		}
	}
	// At 4×4, with 16 channels: 3×3 of 8 and of 16.
	if want, got := n.Cost().MACs-2*(16*9*8*16+16*9*16*16), smaller.Cost().MACs; want != got {
		t.Errorf("%d MACs, want %d", got, want)
	}
	var refused *ReplayError
	if _, err := n.Bypass(n.Sites()[0]); !errors.As(err, &refused) {
		t.Errorf("a stem: %v, want a *ReplayError", err)
	}
}
