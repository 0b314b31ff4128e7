package profile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// MeasureConfig says what Measure measures, and how. The zero value measures all.
type MeasureConfig struct {
	Compare   CompareConfig // Defaults: 20 rounds, 50 ms of warm-up, and those of Compare
	WholeOnly bool          // leaves the layers out
	NoGzip    bool          // leaves gzip out, which takes a minute for a GB
}

// Measure counts as OfModel does, and measures: the size of the parameters after gzip, where the store has values, and how long inference takes, of the whole network and of
// each layer. All are timed in turn, in shuffled order (see Compare), on values that are made up, so that no variable needs one.
//
// A layer is timed as a computation of its own, compiled for inputs of the shapes that were recorded. The sum over the layers is not the time of the whole: alone, a layer has the cost of
// a call, of which Dispatch is the measure, writes its result to memory where XLA would fuse it with what follows, and finds its weights in the cache; the whole is scheduled as one. On a CPU
// with two cores the layers of ResNet-18 in a row took 0.8 of the time of the whole, those of MobileNetV2 1.1. Take the latencies of layers as shares, and the whole's as what a
// user waits for. Layers that compute the same of the same shapes are timed once.
//
// The error is a *BuildError where the network can't be built or compiled, and what Compare returns.
func Measure(ctx context.Context, b compute.Backend, store *model.Store, fn trace.ModelFn, cfg MeasureConfig, inputs ...shapes.Shape) (Profile, error) {
	p, c, err := count(b, store, fn, inputs)
	if err != nil {
		return Profile{}, err
	}
	if !cfg.NoGzip {
		if err := c.compress(&p); err != nil {
			return Profile{}, &BuildError{inputs, err}
		}
	}
	if cfg.Compare.Rounds <= 0 {
		cfg.Compare.Rounds = 20
	}
	if cfg.Compare.WarmUp <= 0 {
		cfg.Compare.WarmUp = 50 * time.Millisecond
	}
	whole, err := c.piece(func(*trace.Op) bool { return true })
	if err != nil {
		return Profile{}, &BuildError{inputs, err}
	}
	m := measuring{backend: b, at: map[string]int{}}
	defer m.release()
	if err := m.add("the whole network", whole); err != nil {
		return Profile{}, &BuildError{inputs, err}
	}
	nothing, release, err := dispatch(b)
	if err != nil {
		return Profile{}, &BuildError{inputs, err}
	}
	m.contenders, m.releases = append(m.contenders, nothing), append(m.releases, release)
	keys := make([]string, len(p.Layers))
	for i, scope := range c.order {
		if cfg.WholeOnly {
			break
		}
		part, err := c.piece(func(op *trace.Op) bool { return c.owner[op] == scope })
		if err == nil && len(part.out) > 0 {
			if err = ctx.Err(); err != nil {
				return Profile{}, context.Cause(ctx)
			}
			err = m.add(p.Layers[i].Path, part)
			keys[i] = part.key
		}
		if err != nil {
			p.Untimed = append(p.Untimed, fmt.Sprintf("%s: %v", p.Layers[i].Path, err))
			keys[i] = ""
		}
	}
	timings, err := Compare(ctx, m.contenders, cfg.Compare)
	if err != nil {
		return Profile{}, err
	}
	p.Latency, p.Dispatch = timings[0], timings[1]
	for i, key := range keys {
		if key != "" {
			p.Layers[i].Latency = timings[m.at[key]]
			p.Layers[i].Latency.Name = p.Layers[i].Path
		}
	}
	return p, nil
}

// measuring is what is compiled and waits to be timed.
type measuring struct {
	backend    compute.Backend
	contenders []Contender
	releases   []func()
	at         map[string]int // of contenders, by the key of the piece
}

func (m *measuring) add(name string, p piece) error {
	if _, known := m.at[p.key]; known {
		return nil
	}
	c, release, err := p.contender(m.backend, name)
	if err != nil {
		return err
	}
	m.at[p.key] = len(m.contenders)
	m.contenders, m.releases = append(m.contenders, c), append(m.releases, release)
	return nil
}

func (m *measuring) release() {
	for _, release := range m.releases {
		release()
	}
}

// dispatch is the least that can be run: one number in, the same number out.
func dispatch(b compute.Backend) (Contender, func(), error) {
	_, c, err := count(b, model.NewStore(), negative, []shapes.Shape{shapes.Make(dtypes.Float32, 1)})
	if err != nil {
		return Contender{}, nil, err
	}
	p, err := c.piece(func(*trace.Op) bool { return true })
	if err != nil {
		return Contender{}, nil, err
	}
	return p.contender(b, "a call")
}

func negative(_ *model.Scope, in []*graph.Node) []*graph.Node { return []*graph.Node{graph.Neg(in[0])} }

// compress measures the size of each variable after gzip.
func (c *counter) compress(p *Profile) error {
	for path, shape := range c.variables() {
		v := c.trace.Store.GetVariable(path)
		if v == nil || !v.HasValue() {
			continue
		}
		keep, err := kept(c.trace.Store, path, shape)
		if err != nil {
			return err
		}
		n, err := gzipBytes(v, keep)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		scope, _ := model.SplitPath(path)
		p.Layers[slices.Index(c.order, scope)].GzipBytes += n
	}
	return nil
}
