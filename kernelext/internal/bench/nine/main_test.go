package main

import (
	"bytes"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/backend/home"
	"github.com/espalier-ml/espalier/pkg/report"
)

// Wrong flags are refused with what to do.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-networks", "vgg"}, "mlp lenet"}, {[]string{"-seeds", "1,x"}, `"x"`}, {[]string{"-rounds", "10"}, "at least 30"}, {[]string{"-rounds", "2", "-fast"}, "at least 3"},
		{[]string{"-sample", "0s"}, "positive"}, {[]string{"-time"}, "espalier bench nine"}, {[]string{"-widths"}, "espalier bench nine"}, {[]string{"-seeds", ""}, "at least one"}, {[]string{"more"}, `"more"`},
	} {
		if _, err := parse(c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want an error with %s", c.args, err, c.want)
		}
	}
	s, err := parse([]string{"-fast"})
	if err != nil || len(s.families) != 2 || len(s.seeds) != 1 {
		t.Errorf("-fast: %+v, %v", s, err)
	}
}

// made is a cell with two seeds: the dense network takes 90 µs in one runtime and 100 µs in the other, the small one 10 µs in the first and factor times as long in the second. In every other round
// the dense network of the first seed takes a tenth more, that of the second a tenth less.
func made(factor float64) cell {
	c := cell{Network: "mlp", Threads: 1, Batch: 64, Spin: []float64{1, 1, 1.01, 1, 2, 1, 1, 1, 1, 1}}
	for _, seed := range []int64{1, 2} {
		for _, s := range []struct {
			role, runtime string
			int8          bool
			us            float64
		}{{teacherNet, ort, false, 90}, {teacherNet, xla, false, 100}, {fastNet, ort, false, 10}, {fastNet, xla, false, 10 * factor}, {fastNet, ort, true, 5}, {teacherNet, ort, true, 45}} {
			x := series{Role: s.role, Runtime: s.runtime, Int8: s.int8, Seed: seed}
			for round := range c.Spin {
				us := s.us
				if round == 4 { // in which something else was at work
					us *= 50 * float64(len(s.role))
				}
				if round%2 == 0 && s.role == teacherNet {
					us *= map[int64]float64{1: 1.1, 2: 0.9}[seed]
				}
				x.Seconds = append(x.Seconds, us*1e-6)
			}
			c.Series = append(c.Series, x)
		}
	}
	return c
}

// The baseline is the fastest dense runtime, the small network is taken in its own, a round that was not quiet is left out, and the interval holds those of all seeds.
func TestCompare(t *testing.T) {
	r, found := made(0.5).compare(is(teacherNet, false), is(fastNet, false))
	if !found || r.slowRuntime != ort || r.fastRuntime != xla || !r.quiet {
		t.Fatalf("%+v, %v", r, found)
	}
	// Seed 1: 99/5 in four of nine rounds, 90/5 in five, whose median is 18. Seed 2: 81/5 in four, 90/5 in five, whose median is 18 too.
	want := comparison{slowRuntime: ort, fastRuntime: xla, slow: 90e-6, fast: 5e-6, ratio: 18, low: 16.2, high: 19.8, quiet: true}
	if diff := cmp.Diff(want, r, cmp.AllowUnexported(comparison{}), cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(a) })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r, _ := made(2).compare(is(teacherNet, false), is(fastNet, false)); r.fastRuntime != ort || math.Abs(r.ratio-9) > 1e-9 {
		t.Errorf("%+v, want 9 times in %s", r, ort)
	} else if want := "no: the interval reaches below 9"; verdict(r, 0, 0) != want { // that of seed 2, from 8.1
		t.Errorf("%+v: %q, want %q", r, verdict(r, 0, 0), want)
	}
}

// A machine that is slowed down by the same third in most rounds is quiet in the others, and in too few of them.
func TestQuiet(t *testing.T) {
	for _, want := range [][]int{{0, 2, 4, 6, 8}, {1, 5, 9}} {
		c := cell{Spin: slices.Repeat([]float64{4. / 3}, 10)}
		for _, i := range want {
			c.Spin[i] = 1
		}
		got, enough := c.quiet()
		if diff := cmp.Diff(want, got); diff != "" || enough {
			t.Errorf("enough: %v; rounds (-want +got):\n%s", enough, diff)
		}
	}
	if rounds, enough := (cell{Spin: []float64{1, 1, 1, 1, 1, 1, 1, 2, 2, 2}}).quiet(); len(rounds) != 7 || !enough {
		t.Errorf("%d of 10 rounds are quiet, enough: %v; want 7, which are", len(rounds), enough)
	}
}

// Nothing is claimed that the interval, the accuracy or the machine does not allow.
func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		low, points, ofLonger float64
		quiet                 bool
		want                  string
	}{
		{9, -0.5, -0.5, true, "yes"}, {8.99, 0, 0, true, "no: the interval reaches below 9"}, {12, -0.51, 0, true, "no: it loses more than 0.5 points"},
		{12, math.NaN(), 0, true, "no: it loses more than 0.5 points"}, {12, 0, 0, false, "no: the machine was not quiet"},
		{12, 0, -0.51, true, "no: it loses more than 0.5 points against the dense network trained as long"}, {12, 0, math.NaN(), true, "no: there is no dense network trained as long"},
	} {
		if got := verdict(comparison{low: c.low, quiet: c.quiet}, c.points, c.ofLonger); got != c.want {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}

// Of several rates the networks are kept whose last one is best on validation data, whatever those before it are.
func TestBest(t *testing.T) {
	r := &run{family: family{rates: []float64{1, 2, 3}}}
	made := map[float64][]net{1: {{validation: 0.9}, {validation: 0.5}}, 2: {{validation: 0.1}, {validation: 0.6}}, 3: {{validation: 0.9}, {validation: 0.6}}}
	got, err := r.best(func(rate float64) ([]net, error) { return made[rate], nil })
	if err != nil || &got[0] != &made[2][0] {
		t.Errorf("%+v, %v, want those of rate 2", got, err)
	}
	bad := errors.New("bad")
	if _, err := r.best(func(rate float64) ([]net, error) { return made[1], bad }); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
}

// The tables say what the files say.
func TestTables(t *testing.T) {
	record := func(recipe string, seed int64, test, macs float64) report.Record {
		return report.Record{Recipe: recipe, Seed: seed, Labels: map[string]string{"network": "mlp", "widths": "1-2"}, Values: map[string]float64{"validation": test, "test": test, "macs": macs, "params": macs}}
	}
	records := []report.Record{record(teacherNet, 1, 0.98, 1200), record(fastNet, 1, 0.977, 100), record(teacherNet, 2, 0.982, 1200), record(fastNet, 2, 0.977, 100), record(denseLong, 1, 0.979, 1200), record(denseLong, 2, 0.981, 1200)}
	rows, err := accuracyTable(records).Cells()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"mlp", fastNet, "1-2", "100", "100", "12.0", "97.70 ± 0.00", "97.70 ± 0.00", "-0.40 ± 0.14"}, rows[2]); diff != "" {
		t.Errorf("accuracy (-want +got):\n%s", diff)
	}
	all := &times{Rounds: 10, Cells: []cell{made(0.5)}, Versions: map[string]string{}}
	for _, seed := range []int64{1, 2} {
		for _, runtime := range []string{ort, xla} {
			all.Accuracy = append(all.Accuracy, judged{Network: "mlp", Role: teacherNet, Seed: seed, Runtime: runtime, Right: 980, N: 1000}, judged{Network: "mlp", Role: fastNet, Seed: seed, Runtime: runtime, Right: 976, N: 1000})
		}
		all.Accuracy = append(all.Accuracy, judged{Network: "mlp", Role: fastNet, Seed: seed, Int8: true, Runtime: ort, Right: 970, N: 1000}, judged{Network: "mlp", Role: teacherNet, Seed: seed, Int8: true, Runtime: ort, Right: 981, N: 1000})
	}
	if rows, err = speedTable(all, records).Cells(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{"mlp", fastNet, "1", "64", "90.0", ort, "5.0", xla, "18.0", "16.2 to 19.8", "12.0", "-0.40", "-0.40", "yes"}}, rows); diff != "" {
		t.Errorf("speed (-want +got):\n%s", diff)
	}
	if rows, err = int8Table(all).Cells(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{"mlp", "1", "64", "5.0", "1.00", "1.00 to 1.00", "18.0", "-1.00", "2.00", "+0.10"}}, rows); diff != "" {
		t.Errorf("int8 (-want +got):\n%s", diff)
	}
}

// Records of a network and seed take the place of those that were there.
func TestReplaceRecords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	of := func(network string, seed int64, test float64) []report.Record {
		return []report.Record{{Recipe: "r", Seed: seed, Labels: map[string]string{"network": network}, Values: map[string]float64{"test": test}}}
	}
	for _, r := range [][]report.Record{of("a", 1, 0.1), of("a", 2, 0.2), of("b", 1, 0.3), of("a", 1, 0.4)} {
		if err := replaceRecords(file, r, r[0].Labels["network"], r[0].Seed); err != nil {
			t.Fatal(err)
		}
	}
	got, err := report.ReadRecords(file)
	if err != nil {
		t.Fatal(err)
	}
	want := append(append(of("a", 2, 0.2), of("b", 1, 0.3)...), of("a", 1, 0.4)...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// From end to end in small: networks are trained, cut, exported, loaded again and timed. A file that is not what its manifest says is refused.
func TestFast(t *testing.T) {
	if choice, err := backend.Describe(); err != nil || choice.Name != "xla:cpu" {
		t.Skipf("needs XLA on the CPU, there is %s: `espalier setup` installs it", choice.Name)
	}
	out, work := t.TempDir(), t.TempDir()
	args := []string{"-fast", "-networks", "mlp", "-rounds", "3", "-sample", "100us", "-out", out, "-work", work}
	var text bytes.Buffer
	if err := command(t.Context(), append(args, "-train"), &text); err != nil {
		t.Fatal(err)
	}
	records, err := report.ReadRecords(filepath.Join(out, accuracyFile))
	if err != nil {
		t.Fatal(err)
	}
	var recipes []string
	for _, r := range records {
		recipes = append(recipes, r.Recipe)
		if macs := r.Values["macs"]; r.Recipe == fastNet && (macs != 784*128+128*64+640 || r.Values["test"] < 0.5) {
			t.Errorf("%+v", r)
		}
	}
	if diff := cmp.Diff([]string{teacherNet, fastNet, noTeacher, randomNet, denseLong, scratchNet, scratchSoft}, recipes); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	s, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	all, err := targets(s, "mlp")
	if err != nil || len(all) != 2 || all[0].m.Role != teacherNet || all[1].m.Role != fastNet {
		t.Fatalf("files: %+v, %v", all, err)
	}
	root, err := home.Dir()
	if err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(root, "peers", "onnxruntime", "bin", "python")
	if exec.Command(python, "-I", "-c", "import onnxruntime, sympy").Run() == nil { // else `espalier test` installs it, and runs this part
		self := exec.Command("go", append([]string{"run", ".", "-time", "-python", python}, args...)...) // of which children are made, not of this test
		self.Stderr = os.Stderr
		got, err := self.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"How much faster, float32", "Int8 on top", "Times by runtime", xla, ort} {
			if !strings.Contains(string(got), want) {
				t.Errorf("no %q in:\n%s", want, got)
			}
		}
		if _, err := os.Stat(filepath.Join(out, tableFile)); err != nil {
			t.Error(err)
		}
		again, err := targets(s, "mlp") // with a look at the digests of all files
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range again {
			if name := a.name + ".int8.onnx"; a.m.Files[name] == "" {
				t.Errorf("%s is not in the manifest: %v", name, a.m.Files)
			}
		}
	}
	file, err := os.OpenFile(all[1].path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := targets(s, "mlp"); err == nil || !strings.Contains(err.Error(), "not what its manifest") {
		t.Errorf("a changed file: %v", err)
	}
}
