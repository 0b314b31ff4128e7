package experiment

import (
	"cmp"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/report"
)

// history is how many weights each parameter had over a run. Names and sizes are kept once, since a run may prune thousands of times.
type history struct {
	Names []string `json:"names,omitempty"`
	Sizes []int    `json:"sizes,omitempty"`
	Kept  []keptAt `json:"kept,omitempty"` // each time that it changed
}

type keptAt struct {
	Step int   `json:"step"`
	Kept []int `json:"kept"`
}

func (h history) layers(i int) []report.Layer {
	layers := make([]report.Layer, len(h.Names))
	for k, name := range h.Names {
		layers[k] = report.Layer{Name: name, Kept: h.Kept[i].Kept[k], Size: h.Sizes[k]}
	}
	return layers
}

// whole reports whether a history that was read can be used.
func (h history) whole() bool {
	return len(h.Names) == len(h.Sizes) && !slices.ContainsFunc(h.Kept, func(k keptAt) bool { return len(k.Kept) != len(h.Names) })
}

// watcher tells Training.Watch how a run goes, and remembers what the run's own record has no place for.
type watcher struct {
	tell    func(report.Progress) // nil: nobody is told
	total   int
	history history
}

// pruned notes what is left after pruning.
func (w *watcher) pruned(step int, stats []mask.Stats) []report.Layer {
	h := &w.history
	if h.Names == nil {
		for _, s := range stats {
			h.Names, h.Sizes = append(h.Names, s.Path), append(h.Sizes, s.Size)
		}
	}
	kept := make([]int, len(stats))
	for i, s := range stats {
		kept[i] = s.Kept
	}
	if n := len(h.Kept); n == 0 || !slices.Equal(h.Kept[n-1].Kept, kept) {
		h.Kept = append(h.Kept, keptAt{step, kept})
	}
	return h.layers(len(h.Kept) - 1)
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
	for i, k := range w.history.Kept {
		point(k.Step).Layers = w.history.layers(i)
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
