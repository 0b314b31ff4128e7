package surgery

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"

	"github.com/espalier-ml/espalier/pkg/criterion"
	"github.com/espalier-ml/espalier/pkg/internal/scoring"
	"github.com/espalier-ml/espalier/pkg/signal"
)

// Plan chooses which units go. sig are the signals that the criterion needs, collected for Network.Params; nil where it needs none.
//
// The units of all groups are ranked by importance, and the least important go until the budget is met, by the smallest number of units that meets it; of equal ones the
// later goes first. Groups of which no place can be scored stay whole, and the plan's notes name them.
//
// Errors: *ConfigError; *BudgetError; *UnknownGroupError; *VanishError; *signal.MissingError; *criterion.ScoreError for importances that are NaN.
func (n *Network) Plan(cfg Config, sig *signal.Signals) (*Plan, error) {
	if err := cfg.check(n); err != nil {
		return nil, err
	}
	importance, err := n.Importance(cfg, sig)
	if err != nil {
		return nil, err
	}
	return n.Choose(cfg, importance)
}

// Choose makes a plan of importances that are known, by the names of groups: those of Importance, for several budgets, or one's own. Groups that have none stay whole.
//
// Errors: those of Plan, and *UnknownGroupError; *criterion.ScoreError for importances that are NaN, or not one for each unit.
func (n *Network) Choose(cfg Config, importance map[string][]float32) (*Plan, error) {
	if err := cfg.check(n); err != nil {
		return nil, err
	}
	cfg = cfg.complete()
	for _, name := range slices.Sorted(maps.Keys(importance)) {
		g := n.byName[name]
		if g == nil {
			return nil, n.unknown(name)
		}
		if got := len(importance[name]); got != g.Size {
			return nil, &criterion.ScoreError{Criterion: cfg.Criterion.Name, Path: name, Problem: fmt.Sprintf("there are %d importances for its %d units", got, g.Size)}
		}
		if err := scoring.Finite(cfg.Criterion, name, importance[name]); err != nil {
			return nil, err
		}
	}
	p := n.Empty()
	p.Criterion, p.Budget = cfg.Criterion.Name, cfg.budget()
	c := &chooser{network: n, cfg: cfg, gone: make([]bool, len(n.analysis.subst))}
	for i, g := range n.groups {
		l := ladder{group: g, scores: importance[g.Name]}
		stayWhole := slices.ContainsFunc(cfg.Exclude, func(e string) bool { return excluded(g, e) })
		if l.scores == nil && !stayWhole {
			p.notes = append(p.notes, fmt.Sprintf("%s stays whole: criterion %q scores none of its places", g.Name, cfg.Criterion.Name))
		}
		l.open = l.scores != nil && !stayWhole
		if l.scores == nil {
			l.scores = make([]float32, g.Size)
		}
		l.order = make([]int, g.Size)
		for u := range l.order {
			l.order[u] = u
		}
		slices.SortFunc(l.order, func(u, v int) int { return cmp.Or(cmp.Compare(l.scores[u], l.scores[v]), cmp.Compare(v, u)) })
		l.floor = max(cfg.MinUnits, int(math.Ceil(cfg.MinShare*float64(g.Size)-1e-9)))
		l.step = cfg.RoundTo / gcd(cfg.RoundTo, g.width())
		l.fixed, l.isFixed = cfg.Keep[g.Name]
		c.ladders = append(c.ladders, l)
		if l.open && !l.isFixed {
			for rank, u := range l.order {
				c.ranked = append(c.ranked, ranked{l.scores[u], i, rank})
			}
		}
	}
	slices.SortStableFunc(c.ranked, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(b.group, a.group), cmp.Compare(a.rank, b.rank))
	})
	if err := c.choose(); err != nil {
		return nil, err
	}
	if c.note != "" {
		p.notes = append(p.notes, c.note)
	}
	if n := n.costs.uncounted; n > 0 && cfg.MACs != 0 {
		p.notes = append(p.notes, fmt.Sprintf("%d convolutions, of a dilated input with strides or of groups of the batch, are not among the MACs, and so not in the budget: Config.Params and Config.Units count what they hold", n))
	}
	for i, l := range c.ladders {
		for _, u := range l.order {
			if c.gone[l.group.atoms[u]] {
				p.Removed[l.group.Name] = append(p.Removed[l.group.Name], u)
			}
		}
		slices.Sort(p.Removed[c.ladders[i].group.Name])
		if note := l.missed(l.group.Size - len(p.Removed[l.group.Name])); note != "" {
			p.notes = append(p.notes, note)
		}
	}
	return p, p.Check()
}

// ladder is a group's units in the order in which they go.
type ladder struct {
	group  *Group
	scores []float32
	order  []int
	open   bool // units may go
	floor  int  // how many stay at least
	step   int  // how many stay is a multiple of this
	// fixed is how many stay, if isFixed.
	fixed   int
	isFixed bool
}

// removed returns how many units go when the ranking says how many should.
func (l ladder) removed(wanted int) int {
	size := l.group.Size
	switch {
	case l.isFixed:
		return size - l.fixed
	case !l.open:
		return 0
	}
	stay := max(size-wanted, l.floor)
	if l.step > 1 {
		stay = (stay + l.step - 1) / l.step * l.step
	}
	return size - min(size, stay)
}

// missed says how a group was not cut as the configuration has it, because units were brought back; "": it was.
func (l ladder) missed(stay int) string {
	const why = "because nothing would be left of a part that the network takes from it"
	switch {
	case l.isFixed && stay != l.fixed:
		return fmt.Sprintf("%s: %d units stay, where Config.Keep asks for %d, %s", l.group.Name, stay, l.fixed, why)
	case !l.isFixed && stay < l.group.Size && stay%l.step != 0:
		return fmt.Sprintf("%s: %d units stay, which is no multiple of the %d that Config.RoundTo asks for, %s", l.group.Name, stay, l.step, why)
	}
	return ""
}

type ranked struct {
	score float32
	group int
	rank  int // among the units of its group
}

// chooser looks for the smallest removal that meets a budget.
type chooser struct {
	network *Network
	cfg     Config
	ladders []ladder
	ranked  []ranked
	gone    []bool
	note    string // where far less stays than was asked for; "": it does not
}

// choose sets gone.
func (c *chooser) choose() error {
	var what string
	var part float64
	var cost func() int64
	switch costs := c.network.costs; {
	case c.cfg.MACs != 0:
		what, part, cost = "MACs", c.cfg.MACs, func() int64 { return costs.MACs(c.gone) }
	case c.cfg.Params != 0:
		what, part, cost = "parameters", c.cfg.Params, func() int64 { return costs.Params(c.gone) }
	case c.cfg.Units != 0:
		what, part, cost = "units", c.cfg.Units, c.units
	default: // Config.Keep alone
		c.remove(make([]int, len(c.ladders)))
		return nil
	}
	clear(c.gone)
	whole := cost()
	if c.cfg.MACs != 0 && whole == 0 && len(c.ranked) > 0 { // a share of nothing would be met by removing nothing
		return &ConfigError{what, fmt.Sprintf("%g of them are to stay, and the network has none that are counted", part), "set Params or Units instead, or Keep for each group"}
	}
	target := quota(part, whole)
	steps, at := c.bySize, c.sizes()
	if !c.cfg.Uniform {
		steps, at = c.byRank, nil
	}
	last := len(c.ranked)
	if c.cfg.Uniform {
		last = len(at) - 1
	}
	least := int64(0)
	found := sort.Search(last+1, func(i int) bool {
		c.remove(steps(i, at))
		return cost() <= target
	})
	if found > last {
		c.remove(steps(last, at))
		least = cost()
		return &BudgetError{what, part, share(least, whole)}
	}
	c.remove(steps(found, at))
	if left := cost(); found > 0 && float64(left) < 0.75*float64(target) {
		c.remove(steps(found-1, at))
		before := cost()
		c.remove(steps(found, at))
		c.note = fmt.Sprintf("%.1f%% of the %s stay, where %.1f%% were asked for: with the last step of the choice they fell from %.1f%%; another share, or a rule that ranks otherwise, may come nearer",
			100*share(left, whole), what, 100*part, 100*share(before, whole))
	}
	return nil
}

// byRank returns how many units of each group are among the first of the ranking.
func (c *chooser) byRank(first int, _ []float64) []int {
	wanted := make([]int, len(c.ladders))
	for _, r := range c.ranked[:first] {
		wanted[r.group]++
	}
	return wanted
}

// sizes returns the shares at which the number of units that stay of some group changes, from 1 down.
func (c *chooser) sizes() []float64 {
	shares := []float64{1}
	for _, l := range c.ladders {
		for k := range l.group.Size {
			shares = append(shares, float64(k)/float64(l.group.Size))
		}
	}
	slices.Sort(shares)
	shares = slices.Compact(shares)
	slices.Reverse(shares)
	return shares
}

// bySize returns how many units of each group go where the same share stays of each.
func (c *chooser) bySize(i int, shares []float64) []int {
	wanted := make([]int, len(c.ladders))
	for k, l := range c.ladders {
		wanted[k] = l.group.Size - int(math.Ceil(shares[i]*float64(l.group.Size)-1e-9))
	}
	return wanted
}

// remove sets gone for so many units of each group.
func (c *chooser) remove(wanted []int) {
	clear(c.gone)
	for i, l := range c.ladders {
		for _, u := range l.order[:l.removed(wanted[i])] {
			c.gone[l.group.atoms[u]] = true
		}
	}
	c.spare()
}

// spare brings units back where an axis would vanish, as half of a split one can: the most important of those that would bring an index back.
func (c *chooser) spare() {
	a := c.network.analysis
	for _, ax := range c.network.axes {
		if a.count(ax, c.gone) > 0 {
			continue
		}
		best, bestScore := -1, float32(math.Inf(-1))
		for i, s := range ax.sets {
			score := float32(0)
			for _, x := range a.atoms(s) {
				if c.gone[x] {
					score += c.score(x)
				}
			}
			if score > bestScore {
				best, bestScore = i, score
			}
		}
		for _, x := range a.atoms(ax.sets[best]) {
			c.gone[x] = false
		}
	}
}

func (c *chooser) score(x atom) float32 {
	for _, l := range c.ladders {
		if u := slices.Index(l.group.atoms, x); u >= 0 {
			return l.scores[u]
		}
	}
	return 0
}

// units returns how many units stay.
func (c *chooser) units() int64 {
	var n int64
	for _, l := range c.ladders {
		for _, x := range l.group.atoms {
			if !c.gone[x] {
				n++
			}
		}
	}
	return n
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
