package experiment

import (
	"cmp"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/report"
)

// keptAt is how many weights each parameter had after a step.
type keptAt struct {
	Step   int            `json:"step"`
	Layers []report.Layer `json:"layers"`
}

// watcher tells Training.Watch how a run goes, and remembers what the run's own record has no place for.
type watcher struct {
	tell  func(report.Progress) // nil: nobody is told
	total int
	kept  []keptAt // each time that it changed
}

// pruned notes what is left after pruning.
func (w *watcher) pruned(step int, stats []mask.Stats) []report.Layer {
	layers := make([]report.Layer, len(stats))
	for i, s := range stats {
		layers[i] = report.Layer{Name: s.Path, Kept: s.Kept, Size: s.Size}
	}
	if n := len(w.kept); n == 0 || !slices.Equal(w.kept[n-1].Layers, layers) {
		w.kept = append(w.kept, keptAt{step, layers})
	}
	return layers
}

func (w *watcher) now(p report.Progress) {
	if w.tell != nil {
		w.tell(p)
	}
}

// past tells what was measured up to now, in the order in which it happened.
func (w *watcher) past(r Result) {
	if w.tell == nil {
		return
	}
	at := map[int]*report.Progress{}
	point := func(step int) *report.Progress {
		if at[step] == nil {
			at[step] = &report.Progress{Step: step, Total: w.total, Loss: math.NaN(), Accuracy: math.NaN()}
		}
		return at[step]
	}
	for _, k := range w.kept {
		point(k.Step).Layers = k.Layers
	}
	for _, l := range r.Losses {
		point(l.Step).Loss = l.Value
	}
	for _, a := range r.Accuracies {
		point(a.Step).Accuracy = a.Value
	}
	point(r.Steps)
	var all []*report.Progress
	for _, p := range at {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *report.Progress) int { return cmp.Compare(a.Step, b.Step) })
	for _, p := range all {
		w.tell(*p)
	}
}
