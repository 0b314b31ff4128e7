package surgery

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/pkg/trace"
)

// Every index of every axis of every value carries a set of atoms. The index disappears when one of its atoms does; with the empty set it stays for good.
// Operations make equal what must go together: an atom then stands for another set. This table says for which.

type (
	atom = int32
	// set is an index into labels.sets. Equal sets have equal indices.
	set = int32
	// reasonID is an index into labels.reasons.
	reasonID = int32
)

const (
	stays set = 0  // the empty set
	own   set = -1 // of an atom that stands for itself
)

// axis labels the indices of one axis of a value.
type axis struct {
	n    int
	sets []set    // of each index; nil: all of them stay
	why  reasonID // why they do, if sets is nil
	// zero says that the value is 0 at an index of this axis that is removed, if what is removed of the variables is 0. A sum over the axis does not
	// change when the index goes.
	zero bool
	// wild, if not 0, says why it may be infinite or no number there, as 0/0 is: zeros that it is multiplied with do not hide it.
	wild reasonID
}

// reason says why an index stays.
type reason struct {
	op   *trace.Op
	text string
}

type labels struct {
	subst   []set      // of each atom: what it stands for
	why     []reasonID // of each atom that stands for the empty set
	single  []set      // of each atom: the set of it alone
	sets    [][]atom   // sorted
	ids     map[string]set
	arena   []atom // where the slices of sets lie
	reasons []reason
	known   map[reason]reasonID
	key     []byte
}

func newLabels() *labels {
	return &labels{sets: [][]atom{nil}, ids: map[string]set{"": stays}, known: map[reason]reasonID{}, reasons: []reason{{text: "it has no units"}}}
}

// because returns the number of a reason.
func (l *labels) because(op *trace.Op, text string) reasonID {
	r := reason{op, text}
	id, found := l.known[r]
	if !found {
		id = reasonID(len(l.reasons))
		l.reasons = append(l.reasons, r)
		l.known[r] = id
	}
	return id
}

// fresh returns the set of a new atom.
func (l *labels) fresh() set {
	x := atom(len(l.subst))
	s := l.add([]atom{x})
	l.subst, l.why, l.single = append(l.subst, own), append(l.why, 0), append(l.single, s)
	return s
}

// freshAxis labels n indices with new atoms. The only index of an axis can't go.
func (l *labels) freshAxis(n int, why reasonID) axis {
	if n <= 1 {
		return axis{n: n, why: why}
	}
	return axis{n: n, sets: l.freshSets(n)}
}

// maxAxis is how many indices an axis may have, each of which takes some fifty bytes. A file of a hundred bytes can ask for more of them than a memory has.
const maxAxis = 1 << 26

func (l *labels) freshSets(n int) []set {
	if n > maxAxis {
		panic(fmt.Errorf("expected axes of at most %d indices, came one of %d; make it smaller, or leave what has it out of the model", maxAxis, n))
	}
	sets := make([]set, n)
	for i := range sets {
		sets[i] = l.fresh()
	}
	return sets
}

func (l *labels) add(atoms []atom) set {
	if len(l.arena)+len(atoms) > cap(l.arena) {
		l.arena = make([]atom, 0, max(4096, len(atoms))) // what lies in the old one stays there
	}
	from := len(l.arena)
	l.arena = append(l.arena, atoms...)
	l.sets = append(l.sets, l.arena[from:len(l.arena):len(l.arena)])
	return set(len(l.sets) - 1)
}

// of returns the set of sorted atoms.
func (l *labels) of(atoms []atom) set {
	switch len(atoms) {
	case 0:
		return stays
	case 1:
		return l.single[atoms[0]]
	}
	l.key = l.key[:0]
	for _, x := range atoms {
		l.key = binary.LittleEndian.AppendUint32(l.key, uint32(x))
	}
	s, found := l.ids[string(l.key)]
	if !found {
		s = l.add(atoms)
		l.ids[string(l.key)] = s
	}
	return s
}

// now returns what a set stands for: atoms that stand for themselves only.
func (l *labels) now(s set) set {
	atoms := l.sets[s]
	if len(atoms) == 1 {
		x := atoms[0]
		if l.subst[x] == own {
			return s
		}
		return l.follow(x)
	}
	if !slices.ContainsFunc(atoms, func(x atom) bool { return l.subst[x] != own }) {
		return s
	}
	var all []atom
	for _, x := range atoms {
		if l.subst[x] == own {
			all = append(all, x)
		} else {
			all = append(all, l.sets[l.follow(x)]...)
		}
	}
	slices.Sort(all)
	return l.of(slices.Compact(all))
}

// follow returns what an atom stands for, and shortens the way there.
func (l *labels) follow(x atom) set {
	before := l.subst[x]
	after := l.now(before)
	if after != before {
		if after == stays {
			l.why[x] = l.whyOf(before)
		}
		l.subst[x] = after
	}
	return after
}

// atoms returns the atoms of which each makes the index disappear.
func (l *labels) atoms(s set) []atom { return l.sets[l.now(s)] }

// whyOf returns why an index that stays does.
func (l *labels) whyOf(s set) reasonID {
	for _, x := range l.sets[s] {
		if l.subst[x] == own {
			continue
		}
		if l.follow(x) == stays {
			return l.why[x]
		}
	}
	return 0
}

func (l *labels) stand(x atom, for_ set, why reasonID) {
	l.subst[x] = for_
	if for_ == stays {
		l.why[x] = why
	}
}

// pin makes an index stay.
func (l *labels) pin(s set, why reasonID) {
	for _, x := range l.atoms(s) {
		l.stand(x, stays, why)
	}
}

func (l *labels) pinAxis(a axis, why reasonID) {
	for _, s := range a.sets {
		l.pin(s, why)
	}
}

func minus(x, y []atom) []atom {
	var rest []atom
	for _, v := range x {
		if !slices.Contains(y, v) {
			rest = append(rest, v)
		}
	}
	return rest
}

// unify makes two indices go together. Where several atoms of one side have to pair with several of the other, all become one, which couples more than
// needed and is never wrong.
func (l *labels) unify(p, q set, why reasonID) {
	p0, q0 := p, q
	p, q = l.now(p), l.now(q)
	if p == q {
		return
	}
	if len(l.sets[p]) == 1 && len(l.sets[q]) == 1 { // by far the most frequent
		l.stand(l.sets[q][0], p, 0)
		return
	}
	left, right := minus(l.sets[p], l.sets[q]), minus(l.sets[q], l.sets[p])
	pin := func(atoms []atom, other, resolved set) {
		if resolved == stays && other != stays {
			why = l.whyOf(other)
		}
		for _, x := range atoms {
			l.stand(x, stays, why)
		}
	}
	switch {
	case len(left) == 0:
		pin(right, p0, p)
	case len(right) == 0:
		pin(left, q0, q)
	case len(right) == 1:
		l.stand(right[0], l.of(left), 0)
	case len(left) == 1:
		l.stand(left[0], l.of(right), 0)
	default:
		all := append(left, right...)
		for _, x := range all[1:] {
			l.stand(x, l.single[all[0]], 0)
		}
	}
}

// unifyAxes makes two axes of equal length go together, index by index.
func (l *labels) unifyAxes(p, q axis, why reasonID) {
	switch {
	case p.sets == nil && q.sets == nil:
		return
	case p.sets == nil:
		l.pinAxis(q, p.why)
		return
	case q.sets == nil:
		l.pinAxis(p, q.why)
		return
	case &p.sets[0] == &q.sets[0]:
		return
	}
	l.pairFactors(p.sets, q.sets, why)
	for i := range p.sets {
		l.unify(p.sets[i], q.sets[i], why)
	}
}

// pairFactors unifies atoms of two axes that occur at the same indices, before the indices themselves are: two products of heads × sizes then pair heads with heads and
// sizes with sizes.
func (l *labels) pairFactors(p, q []set, why reasonID) {
	products := func(sets []set) bool {
		return slices.ContainsFunc(sets, func(s set) bool { return len(l.atoms(s)) > 1 })
	}
	if !products(p) || !products(q) {
		return
	}
	places := func(sets []set) (order []atom, at map[atom]string) {
		found := map[atom][]byte{}
		for i, s := range sets {
			for _, x := range l.atoms(s) {
				if found[x] == nil {
					order = append(order, x)
				}
				found[x] = binary.LittleEndian.AppendUint32(found[x], uint32(i))
			}
		}
		at = make(map[atom]string, len(found))
		for x, key := range found {
			at[x] = string(key)
		}
		return order, at
	}
	left, leftAt := places(p)
	right, rightAt := places(q)
	byPlace := map[string][]atom{}
	for _, y := range right {
		byPlace[rightAt[y]] = append(byPlace[rightAt[y]], y)
	}
	count := map[string]int{}
	for _, x := range left {
		count[leftAt[x]]++
	}
	for _, x := range left {
		if pair := byPlace[leftAt[x]]; len(pair) == 1 && count[leftAt[x]] == 1 {
			l.unify(l.single[x], l.single[pair[0]], why)
		}
	}
}

// union returns the set of the atoms of both.
func (l *labels) union(p, q set) set {
	p, q = l.now(p), l.now(q)
	switch {
	case p == q || q == stays:
		return p
	case p == stays:
		return q
	}
	all := slices.Concat(l.sets[p], l.sets[q])
	slices.Sort(all)
	return l.of(slices.Compact(all))
}

// some tells whether an index of the axis can go.
func (l *labels) some(a axis) bool {
	return slices.ContainsFunc(a.sets, func(s set) bool { return l.now(s) != stays })
}
