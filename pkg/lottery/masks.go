package lottery

import (
	"fmt"
	"io"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/unit"
)

// Masks are which weights of each parameter are alive, by path and in row-major order.
type Masks map[string][]bool

// Kept counts the living weights.
func (m Masks) Kept() int {
	n := 0
	for _, alive := range m {
		n += count(alive)
	}
	return n
}

func count(alive []bool) int {
	n := 0
	for _, a := range alive {
		if a {
			n++
		}
	}
	return n
}

// Save writes masks in the form of mask.Save, a bit for each weight, which mask.Load reads. The set is that of Trial.Params.
func (m Masks) Save(w io.Writer, set params.Set) error {
	store := model.NewStore()
	if err := m.set(store, set); err != nil {
		return err
	}
	return mask.Save(w, store, set)
}

// set sets a store's masks; nil Masks are all alive.
func (m Masks) set(store *model.Store, set params.Set) error {
	for _, p := range set {
		alive, found := m[p.Path]
		switch {
		case m == nil:
			alive = make([]bool, p.Size())
			for i := range alive {
				alive[i] = true
			}
		case !found:
			return &mask.ShapeError{Path: p.Path, Want: fmt.Sprintf("%d values", p.Size()), Got: "none"}
		}
		if err := mask.Set(store, p, alive); err != nil {
			return err
		}
	}
	return nil
}

// toUnits tells which units have a living weight.
func toUnits(layout unit.Layout, alive []bool) []bool {
	units := make([]bool, layout.Count)
	layout.Each(func(weight, unit int) { units[unit] = units[unit] || alive[weight] })
	return units
}

// toWeights is the mask of size weights that keeps whole units.
func toWeights(layout unit.Layout, units []bool, size int) []bool {
	alive := make([]bool, size)
	layout.Each(func(weight, unit int) { alive[weight] = units[unit] })
	return alive
}

// masksOf copies a store's masks.
func masksOf(store *model.Store, set params.Set) (Masks, error) {
	m := Masks{}
	for _, p := range set {
		var err error
		if m[p.Path], err = mask.Bools(store, p); err != nil {
			return nil, err
		}
	}
	return m, nil
}
