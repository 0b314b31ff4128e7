package surgery

import (
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/mask"
	"github.com/espalier-ml/espalier/pkg/params"
)

// Masked returns a store for the original model function with zeros where the plan removes: what the network then computes is what the smaller one has to. Masks and what
// optimizers keep become zero there too. The network's own store is not touched. Errors: those of Check; *ValueError.
func (p *Plan) Masked() (*model.Store, error) {
	removed, err := p.Indices()
	if err != nil {
		return nil, err
	}
	n := p.network
	return copyStore(n.store, cutsOf(n.store, n.analysis.order, n.analysis.shapes, removed), true)
}

// FromMasks makes a plan of the masks (pkg/mask) that lie in the network's store: units go whose weights are dead in all kernels that make them, or in all that read them. Those
// of structured units are such masks.
//
// The smaller network computes what the masked one does where the biases of dead units are zero, too, or where their readers are dead: a bias alone makes a constant, which goes
// with the unit. Plan.Notes names the groups in which such constants are lost; Verify does not see them, because Masked has zeros there too.
//
// Errors: *MaskError if there are no masks, or none of their units is dead; *VanishError for groups that are dead altogether; *mask.ShapeError.
func (n *Network) FromMasks() (*Plan, error) {
	alive := map[string][]bool{} // by the path of the variable
	for _, path := range n.analysis.order {
		v := n.store.GetVariable(path)
		if v == nil {
			continue
		}
		p := params.Param{Path: path, Shape: v.Shape()}
		if n.store.GetVariable(mask.Path(p)) == nil {
			continue
		}
		a, err := mask.Bools(n.store, p)
		if err != nil {
			return nil, err
		}
		alive[path] = a
	}
	if len(alive) == 0 {
		return nil, &MaskError{"the store has none for the variables of this network", "prune with pkg/prune first, or set them with mask.Set"}
	}
	p := n.Empty()
	p.Criterion = "masks"
	for _, g := range n.groups {
		var read []int // of the units that go, those whose readers are alive
		for u := range g.Size {
			unread := n.dead(g, u, Reads, alive)
			if !unread && !n.dead(g, u, Makes, alive) {
				continue
			}
			p.Removed[g.Name] = append(p.Removed[g.Name], u)
			if !unread {
				read = append(read, u)
			}
		}
		notes, err := n.constants(g, read)
		if err != nil {
			return nil, err
		}
		p.notes = append(p.notes, notes...)
	}
	if len(p.Removed) == 0 {
		return nil, &MaskError{fmt.Sprintf("no unit of %d groups is dead in all of the kernels that make it, or in all that read it", len(n.groups)),
			"prune with a structured unit, such as unit.Filter; for single weights there is nothing to cut"}
	}
	return p, p.Check()
}

// dead tells whether all kernels of one role have masks in which a unit is dead.
func (n *Network) dead(g *Group, u int, role Role, alive map[string][]bool) bool {
	some := false
	for _, m := range g.Members {
		if m.Role != role {
			continue
		}
		some = true
		a := alive[m.Path]
		if a == nil {
			return false
		}
		dims := n.analysis.shapes[m.Path]
		inner := 1
		for _, d := range dims[m.Axis+1:] {
			inner *= d
		}
		for _, i := range m.Indices[u] {
			for block := i * inner; block < len(a); block += dims[m.Axis] * inner {
				if slices.Contains(a[block:block+inner], true) {
					return false
				}
			}
		}
	}
	return some
}

// constants says where units of a group whose makers are dead have biases, or offsets of a normalisation, that are not 0.
func (n *Network) constants(g *Group, units []int) (notes []string, err error) {
	for _, m := range g.Members {
		v := n.store.GetVariable(m.Path)
		if m.Role != Follows || v == nil || !v.Trainable || !v.HasValue() || len(units) == 0 {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return nil, err
		}
		whole := cuts{m.Axis: {}}
		for _, u := range units {
			whole[m.Axis] = append(whole[m.Axis], m.Indices[u]...)
		}
		without, err := cut(value, whole, true)
		if err != nil {
			return nil, err
		}
		if diff, _, err := difference(value, without); err != nil {
			return nil, err
		} else if diff > 0 {
			notes = append(notes, fmt.Sprintf("%s: of units that go, masked kernels leave constants up to %.3g in %s, which go too and change the outputs: fine-tune the smaller network, or take these units out of Plan.Removed",
				g.Name, diff, m.Path))
		}
	}
	return notes, nil
}

// bytesOf is the size of a store's variables.
func bytesOf(store *model.Store, paths []string) int64 {
	var total int64
	for _, path := range paths {
		if v := store.GetVariable(path); v != nil {
			total += v.Shape().ByteSize()
		}
	}
	return total
}

// float64s reads a tensor of any type of number.
func float64s(t *tensors.Tensor) ([]float64, error) {
	var result []float64
	err := t.ConstFlatData(func(flat any) { result = toFloats(flat) })
	if err == nil && result == nil && t.Shape().Size() > 0 {
		err = fmt.Errorf("values of type %s can't be compared", t.DType())
	}
	return result, err
}
