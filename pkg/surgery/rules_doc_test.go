package surgery

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/randomnet"
	"github.com/espalier-ml/espalier/pkg/surgery/internal/zoo"
	"github.com/espalier-ml/espalier/pkg/trace"
)

var rewrite = flag.Bool("update", false, "write RULES.md anew")

// described says what each rule does. The table is written from it and from the rules themselves, so neither can have what the other lacks.
var described = map[string]string{
	"Parameter":             "a variable's indices are units; the network's inputs stay",
	"Constant":              "cut like a variable",
	"Iota":                  "made of the numbers that stay: they do not change",
	"RNGBitGenerator":       "drawn as before, and those that stay are taken: the masked network's random numbers; the state stays",
	"Reshape":               "axes that are merged go by either factor; an axis that is split goes by factors, where its units allow it; else they stay",
	"BroadcastInDim":        "axes pass on; new ones are cut like a constant",
	"Transpose":             "axes pass on",
	"Reverse":               "axes pass on, in reverse",
	"Slice":                 "the range that is taken passes on; one index alone, and strides, make indices stay",
	"Pad":                   "axes pass on, and padding is cut with what is added to it; padding between indices makes them stay",
	"Concatenate":           "axes are joined; the others go together",
	"DotGeneral":            "what is multiplied goes together; what is summed over goes if either operand is zero where it is removed, else it stays; the rest passes on",
	"ConvGeneral":           "channels as in a product; in groups, whole groups and places within all groups; spatial axes stay, and groups of the batch",
	"ReduceWindow":          "axes that no window moves along pass on; the others stay",
	"BatchNormForInference": "a channel goes with its scale, offset and statistics",
	"BatchNormForTraining":  "a channel goes with its scale, offset and statistics",
	"Gather":                "axes that are taken whole pass on; those that indices count stay, unless the indices are constant and what is removed is zero: then it is read as zero",
	"ArgMinMax":             "the axis of the positions stays; the others pass on",
	"OptimizationBarrier":   "axes pass on",
	"SchedulingBarrier":     "axes pass on",
	"Bitcast":               "axes pass on where elements keep their size; else they stay",
}

const (
	groupElementwise = "what stands at the same index goes together"
	groupSum         = "the axis that is summed over goes if the value is zero where it is removed, else it stays; the others pass on"
	groupReduce      = "the axes that are reduced stay; the others pass on"
	groupFused       = "does not occur: networks are recorded with the operations that it is made of"
	groupPinned      = "no rule: all that it reads and makes stays; the rest of the network can be cut"
	groupRefused     = "**refused** where it is part of the network: it runs functions, which can't be built in another graph"
)

// ruleOf says what surgery does with an operation.
func ruleOf(op string) string {
	switch {
	case !replayable(op):
		return groupRefused
	case strings.HasPrefix(op, "Fused") || op == "QuantizedEmbeddingLookup":
		return groupFused
	case described[op] != "":
		return described[op]
	case op == "ReduceSum":
		return groupSum
	case strings.HasPrefix(op, "Reduce"):
		return groupReduce
	case elementwise[op]:
		return groupElementwise
	}
	return groupPinned
}

// operations of compute.Function, without what is none.
func operations() []string {
	var names []string
	f := reflect.TypeFor[compute.Function]()
	for i := range f.NumMethod() {
		if name := f.Method(i).Name; !slices.Contains([]string{"Name", "Builder", "Parent", "Closure", "Shape", "Return"}, name) {
			names = append(names, name)
		}
	}
	return names
}

// occurrences counts the networks of the zoo, and of 200 random ones, that have an operation.
func occurrences(t *testing.T) map[string]int {
	t.Helper()
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	add := func(fn trace.ModelFn, inputs ...shapes.Shape) {
		seen := map[string]bool{}
		for _, training := range []bool{false, true} {
			r, err := trace.Record(b, model.NewStore(), fn, trace.Config{Training: training}, inputs...)
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range r.Ops {
				seen[op.Type] = true
			}
		}
		for op := range seen {
			counts[op]++
		}
	}
	for _, n := range zoo.All() {
		var inputs []shapes.Shape
		for _, x := range n.Inputs(1, 2) {
			inputs = append(inputs, x.Shape())
		}
		add(n.Model, inputs...)
	}
	for seed := range uint64(200) {
		n := randomnet.New(seed)
		add(n.Model, n.Input(2))
	}
	return counts
}

// RULES.md says what surgery does with every operation that there is. Each one is in it, each rule is described, and each rule is met in a network of the conformance tests.
func TestRules(t *testing.T) {
	all := operations()
	counts := occurrences(t)
	for op := range rules {
		if described[op] == "" {
			t.Errorf("the rule for %s is not described", op)
		}
	}
	for _, op := range slices.Concat(slices.Sorted(maps.Keys(described)), slices.Sorted(maps.Keys(elementwise))) {
		if !slices.Contains(all, op) {
			t.Errorf("there is no operation %s", op)
		}
		if counts[op] == 0 {
			t.Errorf("no network of the conformance tests has the operation %s", op)
		}
	}
	for op := range described {
		if rules[op] == nil {
			t.Errorf("%s is described and has no rule", op)
		}
	}
	var text bytes.Buffer
	fmt.Fprint(&text, "# What surgery does with each operation\n\nWritten by a test of this package (`go test ./pkg/surgery -run Rules -update`) from the rules themselves, for all operations of "+
		"GoMLX's backends. An index of an axis *goes* or *stays*; an axis *passes on* when its indices go with those of what it is computed from. What stays is told by `Network.Notes`, with the operation that is the reason. "+
		"The last column counts the networks of the conformance tests that have the operation, of "+fmt.Sprint(len(zoo.All()))+" in the zoo and 200 random ones.\n\n| operation | what surgery does | networks |\n|---|---|---:|\n")
	byRule := map[string][]string{}
	var order []string
	for _, op := range all {
		rule := ruleOf(op)
		if byRule[rule] == nil {
			order = append(order, rule)
		}
		byRule[rule] = append(byRule[rule], op)
	}
	last := []string{groupElementwise, groupReduce, groupPinned, groupFused, groupRefused}
	slices.SortStableFunc(order, func(a, b string) int { return slices.Index(last, a) - slices.Index(last, b) })
	for _, rule := range order {
		most := 0
		for _, op := range byRule[rule] {
			most = max(most, counts[op])
		}
		number := fmt.Sprint(most)
		if len(byRule[rule]) > 2 {
			number = fmt.Sprintf("up to %d", most)
		}
		if most == 0 {
			number = "–"
		}
		fmt.Fprintf(&text, "| %s | %s | %s |\n", strings.Join(byRule[rule], ", "), rule, number)
	}
	const file = "RULES.md"
	if *rewrite {
		if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("%s is out of date: run go test ./pkg/surgery -run Rules -update (-want +got)\n%s", file, diff)
	}
}
