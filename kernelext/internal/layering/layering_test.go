package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func list(t *testing.T) []Package {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []Package
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p Package
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsGoDown(t *testing.T) {
	packages := list(t)
	seen := 0
	for _, p := range packages {
		if strings.HasPrefix(p.ImportPath, module) {
			seen++
		}
	}
	if seen < 20 {
		t.Fatalf("found %d packages of ours: the test looks at the wrong place", seen)
	}
	for _, problem := range Check(packages) {
		t.Error(problem)
	}
}

// What cells import must stay small: each package more is linked in every cell.
func TestCellsStaySmall(t *testing.T) {
	for _, p := range list(t) {
		limit, ok := map[string]int{module + "kernelext/survive": 75, module + "kernelext": 110, module + "kernelext/figure": 170}[p.ImportPath]
		if ok && len(p.Deps) > limit {
			t.Errorf("%s depends on %d packages, at most %d are allowed", p.ImportPath, len(p.Deps), limit)
		}
	}
}

func TestWrongEdgesAreFound(t *testing.T) {
	for name, p := range map[string]Package{
		"upwards":                    {ImportPath: module + "pkg/params", Imports: []string{module + "pkg/prune"}},
		"pkg to kernelext":           {ImportPath: module + "pkg/prune", Imports: []string{module + "kernelext"}},
		"pkg to datasets":            {ImportPath: module + "pkg/experiment", Imports: []string{module + "datasets/mnist"}},
		"datasets to pkg":            {ImportPath: module + "datasets/mnist", Imports: []string{module + "pkg/experiment"}},
		"kernelext to GoMLX":         {ImportPath: module + "kernelext", Deps: []string{"github.com/gomlx/gomlx/core/graph"}},
		"the command to GoMLX":       {ImportPath: module + "kernelext/cmd/espalier", Deps: []string{"github.com/gomlx/compute"}},
		"a package nobody has drawn": {ImportPath: module + "pkg/new", Imports: []string{module + "pkg/params"}},
	} {
		if got := Check([]Package{p}); len(got) != 1 {
			t.Errorf("%s: problems %q, want one", name, got)
		}
	}
	fine := Package{ImportPath: module + "pkg/prune", Imports: []string{"fmt", module + "pkg/mask"}, Deps: []string{"github.com/gomlx/gomlx/core/graph"}}
	if got := Check([]Package{fine}); len(got) != 0 {
		t.Errorf("an edge that is drawn: problems %q", got)
	}
}
