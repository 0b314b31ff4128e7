package magic

import (
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// variables lists the names of the kept variables, for completion: where they can't be read there is nothing to offer.
func variables(_ []Magic, state string, before []string) []string {
	list, err := keep.List(state)
	if err != nil {
		return nil
	}
	var names []string
	for _, v := range list {
		taken := false
		for _, b := range before {
			taken = taken || b == v.Name
		}
		if !taken {
			names = append(names, v.Name)
		}
	}
	return names
}

// isName says whether text is a Go identifier, so that it can stand in code.
func isName(text string) bool {
	for i, r := range text {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') && r < 0x80 {
			return false
		}
	}
	return text != "" && !strings.ContainsAny(text, " \t\n\"`;(){}")
}
