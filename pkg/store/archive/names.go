package archive

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const rename = "rename it and pack again"

// checkName refuses each name that would not mean the same file, below the directory that is unpacked into, on every system.
func checkName(name string) error {
	bad := func(format string, args ...any) error {
		return &Error{name, fmt.Sprintf(format, args...), rename}
	}
	switch {
	case name == "":
		return &Error{"", "holds an entry without a name", "pack again"}
	case len(name) > nameField+1+prefixField:
		return &Error{name[:40] + "…", fmt.Sprintf("has a name of %d bytes, at most %d are possible", len(name), nameField+1+prefixField), rename}
	case !utf8.ValidString(name):
		return bad("has a name that is no UTF-8")
	case name[0] == '/':
		return bad("has an absolute name")
	}
	for _, r := range name {
		switch {
		case r == '\\':
			return bad("has a backslash in its name, which separates directories on Windows")
		case strings.ContainsRune(`:<>"|?*`, r):
			return bad("has %q in its name, which Windows gives a meaning", r)
		case !unicode.IsPrint(r):
			return bad("has the character %U in its name, which is not printed", r)
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "":
			return bad("has an empty part in its name")
		case part == "." || part == "..":
			return bad("has the part %q in its name", part)
		case strings.HasSuffix(part, ".") || strings.HasSuffix(part, " "):
			return bad("has the part %q in its name, whose end Windows drops", part)
		case device(part):
			return bad("has the part %q in its name, which is a device on Windows", part)
		}
	}
	return nil
}

// device tells whether Windows takes a name for a device, whatever directory it is in.
func device(part string) bool {
	base, _, _ := strings.Cut(part, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	rest, com := strings.CutPrefix(base, "COM")
	if !com {
		rest, com = strings.CutPrefix(base, "LPT")
	}
	return com && utf8.RuneCountInString(rest) == 1 && strings.Contains("0123456789¹²³", rest)
}

// tree holds the names of an archive, to see that each is there once, on file systems that do not tell cases apart too.
type tree struct {
	limit int
	seen  map[string]node // by folded name
}

type node struct {
	name     string
	dir      bool
	explicit bool // has an entry of its own; other directories follow from the names of files
}

func newTree(limit int) *tree { return &tree{limit, map[string]node{}} }

// add takes in the name of an entry and the directories it implies. It returns the directories that are new, outer ones first.
func (t *tree) add(name string, dir bool) (dirs []string, err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	for i := 0; i < len(name); i++ {
		if name[i] != '/' {
			continue
		}
		parent := node{name[:i], true, false}
		is, err := t.put(parent)
		if err != nil {
			return nil, err
		}
		if is {
			dirs = append(dirs, parent.name)
		}
	}
	is, err := t.put(node{name, dir, true})
	if err != nil {
		return nil, err
	}
	if is && dir {
		dirs = append(dirs, name)
	}
	return dirs, nil
}

// put tells whether a node is new.
func (t *tree) put(n node) (bool, error) {
	key := fold(n.name)
	old, ok := t.seen[key]
	switch {
	case !ok:
		if len(t.seen) >= t.limit {
			return false, &Error{"", fmt.Sprintf("holds more than %d files and directories", t.limit), "raise Limits.Files if that is as it should be"}
		}
		t.seen[key] = n
		return true, nil
	case old.name != n.name:
		return false, &Error{n.name, fmt.Sprintf("differs from %q only in upper and lower case, so they are one on some systems", old.name), rename}
	case old.dir != n.dir:
		return false, &Error{n.name, "is both a file and a directory", rename}
	case n.explicit && old.explicit:
		return false, &Error{n.name, "is there twice", "pack it once"}
	}
	old.explicit = old.explicit || n.explicit
	t.seen[key] = old
	return false, nil
}

// fold makes names equal that differ in case only, by Unicode's simple folding.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for c := unicode.SimpleFold(r); c != r; c = unicode.SimpleFold(c) {
			least = min(least, c)
		}
		return least
	}, name)
}
