package structured

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// A rate of 0.45 on both convolutions of each block removes what SCOP's paper says of ResNet-20, 32 and 56 (Tang et al. 2020, table 2), and so for any method.
func TestPublishedArithmetic(t *testing.T) {
	b := open(t)
	for _, c := range []struct {
		blocks       int
		macs, params string // % that go
	}{{3, "55.8", "56.3"}, {5, "55.9", "56.2"}, {9, "56.0", "56.1"}} {
		if c.blocks > 3 && os.Getenv("ESPALIER_FULL") == "" {
			continue // a minute
		}
		fn := nets.CIFARResNet(c.blocks, 16)
		store := model.NewStore()
		n, err := surgery.Trace(b, store, trace.Single(fn), shapes.Make(dtypes.Float32, 1, 32, 32, 3))
		check(t, err)
		n, err = FreeBranches(n)
		check(t, err)
		keep := map[string]int{}
		for _, g := range n.Groups() {
			made := slices.ContainsFunc(g.Members, func(m surgery.Member) bool { return m.Role == surgery.Makes })
			if made && strings.HasPrefix(g.Name, "/layer") {
				keep[g.Name] = g.Size - int(math.Floor(0.45*float64(g.Size)))
			}
		}
		if len(keep) != 6*c.blocks {
			t.Errorf("%d groups in blocks, want two for each of %d", len(keep), 3*c.blocks)
		}
		p, err := n.Choose(surgery.Config{Keep: keep}, map[string][]float32{})
		check(t, err)
		cost, err := p.Cost()
		check(t, err)
		whole := n.Cost()
		macs := fmt.Sprintf("%.1f", 100-100*float64(cost.MACs)/float64(whole.MACs))
		params := fmt.Sprintf("%.1f", 100-100*float64(cost.Params)/float64(whole.Params))
		if macs != c.macs || params != c.params {
			t.Errorf("%d layers: −%s%% MACs and −%s%% parameters, want −%s and −%s", 6*c.blocks+2, macs, params, c.macs, c.params)
		}
	}
}
