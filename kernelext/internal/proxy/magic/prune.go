package magic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Prune prunes a network that the notebook keeps.
var Prune = Magic{
	Name: "prune", Usage: "NETWORK SPARSITY [criterion=…] [unit=…] [budget=…] [seed=…]", Short: "prunes a network (a variable of type *model.Store) and shows what is left of each layer",
	Doc: "Without more, single weights are ranked over the whole network by their size. The criterion must need no data: those that do take a trainer, in Go (pkg/prune).\n" +
		"SPARSITY is the share of weights, or of units, that are to be gone after it: from 0 to 1, or a percentage such as 90%.",
	Examples: []string{"%prune network 0.9", "%prune network 50% criterion=magnitude unit=filter budget=layerwise"},
	Complete: func(all []Magic, state string, before []string) []string {
		switch len(before) {
		case 0:
			return variables(all, state, nil)
		case 1:
			return []string{"0.5", "0.8", "0.9", "0.95"}
		}
		var rest []string
		for _, o := range pruneOptions {
			if !slices.ContainsFunc(before, func(b string) bool { return strings.HasPrefix(b, o+"=") }) {
				rest = append(rest, o+"=")
			}
		}
		return rest
	},
	Run: func(ctx context.Context, k Kernel, c Call) error {
		code, err := pruneCode(c.Args)
		if err != nil {
			return err
		}
		return k.Go(ctx, code)
	},
}

var pruneOptions = []string{"criterion", "unit", "budget", "seed"}

// pruneCode is the program that prunes. Names in it are such that no notebook has them.
func pruneCode(args []string) (string, error) {
	if len(args) < 2 {
		return "", errors.New("a network and a sparsity are expected, such as `%prune network 0.9`")
	}
	if !isName(args[0]) {
		return "", fmt.Errorf("%q is no name of a variable", args[0])
	}
	sparsity, err := parseSparsity(args[1])
	if err != nil {
		return "", err
	}
	options := map[string]string{"seed": "0"}
	for _, a := range args[2:] {
		name, value, ok := strings.Cut(a, "=")
		if !ok || !slices.Contains(pruneOptions, name) || value == "" {
			return "", fmt.Errorf("%q is not understood; expected NAME=VALUE with one of %s", a, strings.Join(pruneOptions, ", "))
		}
		options[name] = value
	}
	seed, err := strconv.ParseInt(options["seed"], 10, 64)
	if err != nil {
		return "", fmt.Errorf("seed=%q: expected a whole number", options["seed"])
	}
	return fmt.Sprintf(pruneProgram, seed, options["criterion"], options["unit"], options["budget"], args[0], sparsity), nil
}

func parseSparsity(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	s, err := strconv.ParseFloat(number, 64)
	if percent {
		s /= 100
	}
	if err != nil || !(s >= 0 && s <= 1) {
		return 0, fmt.Errorf("the sparsity %q is not understood; expected 0 to 1, or 0%% to 100%%", text)
	}
	return s, nil
}

const pruneProgram = `import (
	espalierErrors "errors"
	espalierFmt "fmt"
	espalierKernel "github.com/espalier-ml/espalier/kernelext"
	espalierBackend "github.com/espalier-ml/espalier/pkg/backend"
	espalierBudget "github.com/espalier-ml/espalier/pkg/budget"
	espalierCriterion "github.com/espalier-ml/espalier/pkg/criterion"
	espalierMask "github.com/espalier-ml/espalier/pkg/mask"
	espalierParams "github.com/espalier-ml/espalier/pkg/params"
	espalierPrune "github.com/espalier-ml/espalier/pkg/prune"
	espalierReport "github.com/espalier-ml/espalier/pkg/report"
	espalierUnit "github.com/espalier-ml/espalier/pkg/unit"
)

func main() {
	recipe := espalierPrune.Recipe{Seed: %d}
	unknown := func(what, name string) error { return espalierFmt.Errorf("there is no %%s %%q", what, name) }
	found := true
	if name := %q; name != "" {
		if recipe.Criterion, found = espalierCriterion.ByName(name); !found {
			espalierKernel.Must(unknown("criterion", name))
		}
	}
	if name := %q; name != "" {
		if recipe.Unit, found = espalierUnit.ByName(name); !found {
			espalierKernel.Must(unknown("unit", name))
		}
	}
	if name := %q; name != "" {
		if recipe.Budget, found = espalierBudget.ByName(name); !found {
			espalierKernel.Must(unknown("budget", name))
		}
	}
	recipe = recipe.Complete()
	if recipe.Criterion.Needs != 0 {
		espalierKernel.Must(espalierErrors.New("criterion " + recipe.Criterion.Name + " needs data: use a trainer's Signals and pkg/prune in Go"))
	}
	gomlx, err := espalierBackend.Open()
	espalierKernel.Must(err)
	network := %s
	pruner, err := espalierPrune.New(gomlx, network, espalierParams.Select(network, nil), recipe)
	espalierKernel.Must(err)
	stats, err := pruner.Prune(%v, nil)
	espalierKernel.Must(err)
	table := espalierReport.Table{
		Title:   espalierFmt.Sprintf("%%s, %%s, %%s: %%.1f%%%% of the weights are gone", recipe.Criterion.Name, recipe.Unit.Name, recipe.Budget.Name, 100*espalierMask.Sparsity(stats)),
		Columns: []espalierReport.Column{{Name: "parameter"}, {Name: "weights"}, {Name: "left"}, {Name: "sparsity", Unit: "%%", Format: "%%.1f"}},
	}
	for _, s := range stats {
		table.Rows = append(table.Rows, []any{s.Path, s.Size, s.Kept, 100 * (1 - float64(s.Kept)/float64(max(1, s.Size)))})
	}
	espalierKernel.Show(table)
}`
