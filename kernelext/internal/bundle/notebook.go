package bundle

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
)

// scripts parses a notebook and returns the numbers, from 1, of the cells whose outputs hold scripts. The error is a *nbrun.FormatError for what `espalier run`
// would not take either.
func scripts(path string, data []byte) (cells []int, err error) {
	bad := func(format string, args ...any) ([]int, error) {
		return nil, &nbrun.FormatError{Path: path, Problem: fmt.Sprintf(format, args...)}
	}
	var nb map[string]json.RawMessage // not a struct, whose fields would be found in any case of letters
	if err := json.Unmarshal(data, &nb); err != nil {
		return bad("it is no JSON (%v)", err)
	}
	var format int
	if json.Unmarshal(nb["nbformat"], &format) != nil || format != 4 {
		return bad("its nbformat is not 4")
	}
	var list []map[string]json.RawMessage
	if err := json.Unmarshal(nb["cells"], &list); err != nil {
		return bad("it has no list of cells")
	}
	for i, cell := range list {
		var kind string
		if json.Unmarshal(cell["cell_type"], &kind) != nil || !slices.Contains([]string{"code", "markdown", "raw"}, kind) {
			return bad("cell %d has the type %.40q", i+1, kind)
		}
		if kind != "code" || cell["outputs"] == nil {
			continue
		}
		var outputs []map[string]json.RawMessage
		if json.Unmarshal(cell["outputs"], &outputs) != nil || slices.ContainsFunc(outputs, func(o map[string]json.RawMessage) bool { return o == nil }) {
			return bad("cell %d has outputs that are no list of objects", i+1)
		}
		if slices.ContainsFunc(outputs, holdsScript) {
			cells = append(cells, i+1)
		}
	}
	return cells, nil
}

// script is how a page has something executed: as an element, by an event, by an address.
var script = regexp.MustCompile(`(?i)<script|<[^>]*[\s"'/]on[a-z]+\s*=|javascript:`)

// holdsScript tells whether Jupyter would run something of an output, if it trusted the notebook.
func holdsScript(output map[string]json.RawMessage) bool {
	var data map[string]any
	if json.Unmarshal(output["data"], &data) != nil {
		return false
	}
	for kind, value := range data {
		kind = strings.ToLower(kind)
		if strings.Contains(kind, "javascript") {
			return true
		}
		markup := strings.HasPrefix(kind, "text/html") || strings.HasPrefix(kind, "image/svg")
		if markup && script.MatchString(joined(value)) {
			return true
		}
	}
	return false
}

// joined is text that nbformat gives as a string or as a list of lines.
func joined(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var b strings.Builder
		for _, line := range v {
			fmt.Fprint(&b, line)
		}
		return b.String()
	}
	return ""
}
