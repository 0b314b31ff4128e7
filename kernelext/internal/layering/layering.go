// Package layering holds the direction of imports between the packages of this project, and checks it.
package layering

import (
	"fmt"
	"slices"
	"strings"
)

const module = "github.com/espalier-ml/espalier/"

// below says what each package may import of ours, besides what those import. Packages that are not listed may import nothing of ours.
var below = map[string][]string{
	"pkg/backend":                 {"pkg/backend/home"},
	"pkg/criterion":               {"pkg/params"},
	"pkg/criterion/criteriontest": {"pkg/criterion", "pkg/params"},
	"pkg/unit":                    {"pkg/params"},
	"pkg/budget":                  {"pkg/params"},
	"pkg/mask":                    {"pkg/params"},
	"pkg/signal":                  {"pkg/params", "pkg/criterion"},
	"pkg/internal/scoring":        {"pkg/params", "pkg/criterion", "pkg/signal"},
	"pkg/prune":                   {"pkg/params", "pkg/criterion", "pkg/unit", "pkg/budget", "pkg/schedule", "pkg/mask", "pkg/signal"},
	"pkg/sparsetrain":             {"pkg/params", "pkg/criterion", "pkg/budget", "pkg/schedule", "pkg/mask", "pkg/signal", "pkg/prune"},
	"pkg/reconstruct":             {"pkg/params", "pkg/criterion", "pkg/mask", "pkg/signal", "pkg/prune"},
	"pkg/sensitivity":             {"pkg/params", "pkg/criterion", "pkg/unit", "pkg/budget", "pkg/mask", "pkg/signal", "pkg/prune", "pkg/profile", "pkg/report"},
	"pkg/profile":                 {"pkg/trace", "pkg/params", "pkg/mask", "pkg/report", "pkg/store"},
	"pkg/surgery":                 {"pkg/trace", "pkg/params", "pkg/criterion", "pkg/mask", "pkg/signal", "pkg/profile", "pkg/report"},
	"pkg/surgery/internal/fill":   {"pkg/trace"},
	"pkg/surgery/internal/zoo":    {"pkg/surgery/internal/fill", "pkg/trace"},
	"pkg/structured":              {"pkg/surgery", "pkg/trace", "pkg/criterion", "pkg/params", "pkg/signal", "pkg/reconstruct", "pkg/backend"},
	"pkg/onnx":                    {"pkg/trace", "pkg/surgery"},
	"pkg/distill":                 {"pkg/backend"},
	"pkg/store":                   {"pkg/backend/home"},
	"pkg/store/checkpoint":        {"pkg/store/safetensors"},
	"pkg/carry":                   {"pkg/store/checkpoint", "pkg/params", "pkg/criterion", "pkg/unit", "pkg/budget", "pkg/prune", "pkg/backend"},
	"pkg/experiment":              {"pkg/store", "pkg/store/checkpoint", "pkg/params", "pkg/criterion", "pkg/unit", "pkg/budget", "pkg/schedule", "pkg/mask", "pkg/signal", "pkg/prune", "pkg/profile", "pkg/backend", "pkg/report"},
	"pkg/lottery":                 {"pkg/params", "pkg/criterion", "pkg/unit", "pkg/budget", "pkg/mask", "pkg/signal", "pkg/prune", "pkg/experiment", "pkg/report", "pkg/store"},
	"kernelext":                   {"kernelext/result", "pkg/report", "kernelext/survive"},
	"kernelext/survive":           {"kernelext/internal/keep/manifest"},
	"kernelext/figure":            {"pkg/report"},
	"kernelext/live":              {"kernelext", "kernelext/figure", "pkg/report"},
}

// Package is what the check has to know of a package: its import path, what it imports, and all that it depends on.
type Package struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// Check returns what is wrong with the imports of packages, a line each.
func Check(packages []Package) []string {
	var problems []string
	for _, p := range packages {
		name, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			continue
		}
		for _, imported := range p.Imports {
			other, ours := strings.CutPrefix(imported, module)
			if ours && !allowed(name, other) {
				problems = append(problems, fmt.Sprintf("%s imports %s, which is not below it", name, other))
			}
		}
		for _, dep := range p.Deps {
			// Cells are compiled each time, so what they import has to stay small.
			small := []string{"kernelext", "kernelext/survive", "kernelext/result", "kernelext/figure", "kernelext/live", "kernelext/cmd/espalier"}
			if slices.Contains(small, name) && strings.HasPrefix(dep, "github.com/gomlx/") {
				problems = append(problems, fmt.Sprintf("%s depends on %s", name, dep))
			}
		}
	}
	return problems
}

func allowed(from, to string) bool {
	if slices.Contains(below[from], to) {
		return true
	}
	top := func(name string) string { return name[:strings.IndexByte(name+"/", '/')] }
	switch {
	case from == to:
		return true
	case strings.HasPrefix(from, "pkg/") && strings.HasPrefix(to, "pkg/internal/"):
		return true
	case strings.HasPrefix(from, "kernelext/cmd/") || strings.HasPrefix(from, "kernelext/internal/"):
		return true // the command may use everything
	case top(from) == "datasets":
		// A data set may use the engine that they share, other data sets, and the place for caches; no more of pkg.
		return top(to) == "datasets" || to == "pkg/backend/home"
	}
	return false
}
