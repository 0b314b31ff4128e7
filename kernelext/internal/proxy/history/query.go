package history

import "slices"

// Query is the content of a history_request.
type Query struct {
	Access  string `json:"hist_access_type"` // "tail", "range", "search"
	Output  bool   `json:"output"`
	Session int    `json:"session"` // for range: 0 is this one, negative ones are before it
	Start   int    `json:"start"`
	Stop    *int   `json:"stop"` // exclusive; nil: to the end
	N       *int   `json:"n"`
	Pattern string `json:"pattern"` // for search: * is any text, ? any character, [abc] one of them
	Unique  bool   `json:"unique"`
}

// Find returns what a query asks for, oldest first.
func (h *History) Find(q Query) ([]Entry, error) {
	all, err := read(h.path)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	own := slices.Clone(h.entries)
	h.mu.Unlock()
	// Of this session the entries in memory have results; what another process wrote meanwhile has higher session numbers and may come too.
	all = slices.DeleteFunc(all, func(e Entry) bool { return e.Line == 0 || e.Session == h.session })
	after := slices.IndexFunc(all, func(e Entry) bool { return e.Session > h.session })
	if after < 0 {
		after = len(all)
	}
	all = slices.Insert(all, after, own...)
	switch q.Access {
	case "range":
		session := q.Session
		if session <= 0 {
			session += h.session
		}
		all = slices.DeleteFunc(all, func(e Entry) bool {
			return e.Session != session || e.Line < q.Start || q.Stop != nil && e.Line >= *q.Stop
		})
		return all, nil
	case "search":
		pattern := q.Pattern
		if pattern == "" {
			pattern = "*"
		}
		all = slices.DeleteFunc(all, func(e Entry) bool { return !glob(pattern, e.Source) })
		if q.Unique {
			all = unique(all)
		}
	}
	if q.N != nil && len(all) > max(*q.N, 0) {
		all = all[len(all)-max(*q.N, 0):]
	}
	return all, nil
}

// unique keeps the last entry of each source.
func unique(all []Entry) []Entry {
	seen := map[string]bool{}
	var kept []Entry
	for _, e := range slices.Backward(all) {
		if !seen[e.Source] {
			seen[e.Source] = true
			kept = append(kept, e)
		}
	}
	slices.Reverse(kept)
	return kept
}

// glob matches all of text. Unlike path.Match its * goes over everything. It takes time proportional to the product of the lengths at most.
func glob(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	i, j, star, mark := 0, 0, -1, 0
	for j < len(t) {
		if i < len(p) && p[i] == '*' {
			star, mark = i, j
			i++
			continue
		}
		if i < len(p) {
			if n, ok := one(p[i:], t[j]); ok {
				i += n
				j++
				continue
			}
		}
		if star < 0 {
			return false
		}
		i, mark = star+1, mark+1
		j = mark
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// one matches one character, and returns how much of the pattern it took.
func one(p []rune, r rune) (int, bool) {
	if p[0] == '?' {
		return 1, true
	}
	if p[0] == '[' {
		if end := slices.Index(p, ']'); end > 1 {
			set := p[1:end]
			for i := 0; i < len(set); i++ {
				if i+2 < len(set) && set[i+1] == '-' {
					if set[i] <= r && r <= set[i+2] {
						return end + 1, true
					}
					i += 2
				} else if set[i] == r {
					return end + 1, true
				}
			}
			return 0, false
		}
	}
	return 1, p[0] == r
}
