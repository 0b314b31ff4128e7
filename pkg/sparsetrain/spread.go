package sparsetrain

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/pkg/internal/rank"
)

// ByRoom gives layers shares in proportion to how many weights they could grow: places are equally likely all over the network.
var ByRoom = Share{Name: "room", Claim: func(r *Round) []float64 {
	claims := make([]float64, len(r.Layers))
	for i, l := range r.Layers {
		claims[i] = float64(l.Room())
	}
	return claims
}}

// counts returns how many weights each layer grows, or a *RuleError.
func (s Share) counts(r *Round) ([]int, error) {
	settle := r.hold()
	if s.Count != nil {
		counts, err := s.Count(r)
		settle()
		if err != nil {
			return nil, err
		}
		if len(counts) != len(r.Layers) {
			return nil, &RuleError{s.Name, "", fmt.Sprintf("it gives %d counts for %d layers", len(counts), len(r.Layers))}
		}
		for i, l := range r.Layers {
			if counts[i] < 0 || counts[i] > l.Room() {
				return nil, &RuleError{s.Name, l.Param.Path, fmt.Sprintf("it grows %d weights, and there is room for %d", counts[i], l.Room())}
			}
		}
		return counts, nil
	}
	claims := s.Claim(r)
	settle()
	if len(claims) != len(r.Layers) {
		return nil, &RuleError{s.Name, "", fmt.Sprintf("it gives %d claims for %d layers", len(claims), len(r.Layers))}
	}
	total, rooms, least := 0, make([]int, len(claims)), make([]int, len(claims))
	for i, l := range r.Layers {
		if math.IsNaN(claims[i]) || math.IsInf(claims[i], 0) || claims[i] < 0 {
			return nil, &RuleError{s.Name, l.Param.Path, fmt.Sprintf("it claims %v, expected a number of at least 0", claims[i])}
		}
		total += l.Dropped
		rooms[i] = l.Room()
		if l.Living == l.Dropped && l.Dropped > 0 {
			least[i] = 1
		}
	}
	return spread(total, claims, rooms, least), nil
}

// spread divides a total over layers in proportion to their claims: each gets its least at least and what it has room for at most, and all together exactly the total. It
// is water-filling: layers that would overflow are full, and the others share the rest in proportion, again and again. Rounding goes by largest remainders, of
// equal ones the earlier. The rooms must hold the total.
func spread(total int, claims []float64, rooms, least []int) []int {
	counts := make([]int, len(claims))
	full := make([]bool, len(claims))
	if most := slices.Max(claims); most > 1e290 { // their sum, or a multiple, may be infinite; others are left as they are, to the bit
		claims = slices.Clone(claims)
		for i := range claims {
			claims[i] /= most
		}
	}
	for i := range claims {
		counts[i] = min(least[i], rooms[i])
		total -= counts[i]
	}
	room := func(i int) float64 { return float64(rooms[i] - counts[i]) }
	for total > 0 {
		sum := 0.0
		for i, c := range claims {
			if full[i] = room(i) == 0; !full[i] {
				sum += c
			}
		}
		if sum == 0 { // those that claim something are full: the others share by what they have room for
			claims = make([]float64, len(claims))
			for i := range claims {
				claims[i] = room(i)
				sum += claims[i]
			}
			if sum == 0 {
				return counts // there is no room at all
			}
		}
		overflow := false
		for i, c := range claims {
			if !full[i] && float64(total)*c/sum >= room(i) {
				overflow = true
			}
		}
		if overflow {
			share := total
			for i, c := range claims {
				if !full[i] && float64(share)*c/sum >= room(i) {
					total -= rooms[i] - counts[i]
					counts[i] = rooms[i]
				}
			}
			continue
		}
		remainders, left := make([]float32, len(claims)), total
		eligible := make([]bool, len(claims))
		for i, c := range claims {
			if full[i] {
				continue
			}
			whole, part := math.Modf(float64(total) * c / sum)
			counts[i] += int(whole)
			left -= int(whole)
			remainders[i], eligible[i] = float32(part), rooms[i] > counts[i]
		}
		more := make([]bool, len(claims))
		rank.Top(left, []rank.Candidate{{Scores: remainders, Eligible: eligible, Keep: more}})
		for i := range more {
			if more[i] {
				counts[i]++
			}
		}
		return counts
	}
	return counts
}

// top tells which are the n highest of some scores, of equal ones the earlier. What it returns holds until it is called again.
func (l *Layer) top(n int, scores []float32) []bool {
	keep := room(&l.rooms().keep, len(scores))
	clear(keep)
	rank.Top(n, []rank.Candidate{{Scores: scores, Keep: keep}})
	return keep
}

// bestOpen returns the places of the n weights of highest score among those that can be grown, of equal ones the earlier, or a *RuleError for NaN. n is at most Room. The places
// hold until it is called again.
func (l *Layer) bestOpen(rule string, n int, scores []float32) ([]int32, error) {
	if n <= 0 {
		return nil, numbers(rule, l, scores)
	}
	// A selection looks at its candidates several times. Few are grown of many, so that most can be told to be too low by a look at some.
	least := float32(math.Inf(-1))
	const sample, slack = 1024, 32 // where a thirtieth of all is grown, slack is more than five deviations of how many of these a sample has
	if few := n * sample / l.Room(); len(scores) > 8*sample && few < sample/4 {
		some := make([]float32, 0, sample)
		for i := range sample {
			if i = i * len(scores) / sample; l.Open(i) {
				some = append(some, scores[i])
			}
		}
		if above := n*len(some)/l.Room() + slack; above < len(some) {
			if err := numbers(rule, l, some); err != nil {
				return nil, err
			}
			least = float32(math.Inf(1))
			for i, best := range l.top(above+1, some) {
				if best {
					least = min(least, some[i])
				}
			}
		}
	}
	for {
		// NaN is below nothing, so that one which there is comes along.
		high := notBelow(least, scores, room(&l.rooms().places, len(scores)))
		places, few, open := high, room(&l.room.few, len(high)), 0
		for _, i := range high {
			s := scores[i]
			if s != s {
				return nil, numbers(rule, l, scores)
			}
			places[open], few[open] = i, s
			if l.Open(int(i)) {
				open++
			}
		}
		few = few[:open]
		if len(few) < n && !math.IsInf(float64(least), -1) { // the sample was not like the rest
			least = float32(math.Inf(-1))
			continue
		}
		grown := 0
		for j, best := range l.top(n, few) {
			places[grown] = places[j]
			if best {
				grown++
			}
		}
		return places[:grown], nil
	}
}

// notBelow returns the places of the scores that are not below the least. into has room for all.
func notBelow(least float32, scores []float32, into []int32) []int32 {
	n := 0
	into = into[:len(scores)]
	for i, s := range scores {
		into[n] = int32(i) // without a branch, which would often be told wrong
		if !(s < least) {
			n++
		}
	}
	return into[:n]
}
