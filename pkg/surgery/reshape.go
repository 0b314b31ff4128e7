package surgery

import (
	"slices"
)

// largestProduct bounds the labels that a reshape makes for one axis, or takes from several. Beyond it they stay, and that is said.
const largestProduct = 1 << 22

// reshape labels the axes of a reshaped value. It divides the axes into the smallest groups that have as many elements before as after, so that what is not
// touched by it is not looked at.
func (l *labels) reshape(in []axis, out []int, why reasonID) []axis {
	var result []axis
	for _, d := range out {
		if d == 0 { // nothing to label
			for _, n := range out {
				result = append(result, axis{n: n, why: why})
			}
			return result
		}
	}
	for i, j := 0, 0; i < len(in) || j < len(out); {
		i0, j0 := i, j
		p, q := 1, 1
		if i < len(in) {
			p = in[i].n
			i++
		}
		if j < len(out) {
			q = out[j]
			j++
		}
		for p != q {
			if p < q {
				p *= in[i].n
				i++
			} else {
				q *= out[j]
				j++
			}
		}
		result = append(result, l.regroup(in[i0:i], out[j0:j], p, why)...)
	}
	return result
}

// regroup labels the axes that a smallest group of axes with n elements in all becomes: together they carry the same sets.
func (l *labels) regroup(in []axis, out []int, n int, why reasonID) []axis {
	result := make([]axis, len(out))
	zero := !slices.ContainsFunc(in, func(a axis) bool { return a.sets != nil && !a.zero })
	wild := reasonID(0)
	for _, a := range in {
		if a.sets != nil { // of an axis that stays nothing is removed
			wild = max(wild, a.wild)
		}
	}
	for k, d := range out {
		result[k] = axis{n: d, why: why, zero: zero, wild: wild}
		for _, a := range in {
			if a.sets == nil && a.n > 1 {
				result[k].why = a.why
			}
		}
	}
	if !slices.ContainsFunc(in, l.some) {
		for _, a := range in { // its indices stay because of what they stood for
			if a.sets != nil {
				for k := range result {
					result[k].why = l.whyOf(a.sets[0])
				}
			}
		}
		return result
	}
	if from, to := onlyAxis(in), onlyDim(out); from >= 0 && to >= 0 { // axes of size 1 come or go
		result[to] = in[from]
		return result
	}
	if n > largestProduct {
		for _, a := range in {
			l.pinAxis(a, why)
		}
		return result
	}
	flat := l.flatten(in, n)
	if to := onlyDim(out); to >= 0 { // merged
		result[to].sets = flat
		return result
	}
	return l.split(flat, out, result, why)
}

// onlyAxis returns the only axis of more than one index; −1 if there are several.
func onlyAxis(in []axis) int {
	only := -1
	for i, a := range in {
		if a.n > 1 {
			if only >= 0 {
				return -1
			}
			only = i
		}
	}
	return only
}

func onlyDim(out []int) int {
	axes := make([]axis, len(out))
	for i, n := range out {
		axes[i].n = n
	}
	return onlyAxis(axes)
}

// flatten returns the sets of the elements of several axes, in row-major order: the union of those of their indices.
func (l *labels) flatten(in []axis, n int) []set {
	flat := make([]set, n)
	block := n
	for _, a := range in {
		block /= a.n
		if a.sets == nil || a.n == 1 {
			continue
		}
		now := make([]set, a.n)
		for i, s := range a.sets {
			now[i] = l.now(s)
		}
		for m := range flat {
			s := now[m/block%a.n]
			switch {
			case s == stays:
			case flat[m] == stays:
				flat[m] = s
			default:
				flat[m] = l.union(flat[m], s)
			}
		}
	}
	return flat
}

// split divides the elements into axes. An index of an axis takes the atoms that all of its elements share. What is left over has to be the same for none, or each
// element an atom of its own, which then stands for one new factor of each axis; anything else stays.
func (l *labels) split(flat []set, out []int, result []axis, why reasonID) []axis {
	blocks := make([]int, len(out))
	block := len(flat)
	for k, d := range out {
		block /= d
		blocks[k] = block
	}
	at := func(m, k int) int { return m / blocks[k] % out[k] }
	shared := make([][][]atom, len(out))
	for k, d := range out {
		if d == 1 {
			continue
		}
		shared[k] = make([][]atom, d)
		seen := make([]bool, d)
		for m, s := range flat {
			i := at(m, k)
			if !seen[i] {
				seen[i], shared[k][i] = true, slices.Clone(l.atoms(s))
			} else if len(shared[k][i]) > 0 {
				atoms := l.atoms(s)
				shared[k][i] = slices.DeleteFunc(shared[k][i], func(x atom) bool { return !slices.Contains(atoms, x) })
			}
		}
	}
	rest := make([][]atom, len(flat))
	none, single := true, true
	distinct := map[atom]bool{}
	for m, s := range flat {
		r := l.atoms(s)
		for k := range out {
			if shared[k] != nil && len(shared[k][at(m, k)]) > 0 {
				r = minus(r, shared[k][at(m, k)])
			}
		}
		rest[m] = r
		none = none && len(r) == 0
		if single = single && len(r) == 1; single {
			distinct[r[0]] = true
		}
	}
	switch {
	case none:
	case single && len(distinct) == len(flat):
		factors := make([][]atom, len(out))
		for k, d := range out {
			if d == 1 {
				continue
			}
			for i := range d {
				x := l.sets[l.fresh()][0]
				factors[k] = append(factors[k], x)
				shared[k][i] = append(shared[k][i], x)
			}
		}
		for m, r := range rest {
			var product []atom
			for k := range out {
				if factors[k] != nil {
					product = append(product, factors[k][at(m, k)])
				}
			}
			slices.Sort(product)
			l.stand(r[0], l.of(product), 0)
		}
	default:
		for _, r := range rest {
			for _, x := range r {
				l.pin(l.single[x], why)
			}
		}
	}
	for k, d := range out {
		if d == 1 {
			continue
		}
		result[k].sets = make([]set, d)
		for i, atoms := range shared[k] {
			slices.Sort(atoms)
			result[k].sets[i] = l.of(atoms)
		}
	}
	return result
}
