package nbrun

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

func TestCompare(t *testing.T) {
	table := func(text string) map[string]any {
		return map[string]any{"output_type": "display_data", "data": map[string]any{"text/html": "<table>", "text/plain": text}}
	}
	one := func(tags []string, outputs ...map[string]any) *Notebook {
		return notebook(t, map[string]any{}, tags, outputs...)
	}
	for _, test := range []struct {
		name          string
		before, after *Notebook
		compared      int
		want          []Difference
	}{
		{"the same", one(nil, stream("stdout", "a\n"), table("1\n2")), one(nil, stream("stdout", "a\n"), table("1\n2")), 1, nil},
		{"spaces at the ends of lines", one(nil, table("1  \n2")), one(nil, table("1\n2\n")), 1, nil},
		{"never executed before", one(nil), one(nil, table("1")), 0, nil},
		{"another number", one(nil, stream("stdout", "a\n"), table("1\n2")), one(nil, stream("stdout", "a\n"), table("1\n3")), 1, []Difference{{Cell: 1, Line: 3, Was: "2", Is: "3"}}},
		{"a line less", one(nil, table("1\n2")), one(nil, table("1")), 1, []Difference{{Cell: 1, Line: 2, Was: "2"}}},
		{"a line more", one(nil, table("1")), one(nil, table("1\n2")), 1, []Difference{{Cell: 1, Line: 2, Is: "2"}}},
		{"nothing any more", one(nil, table("1")), one(nil), 1, []Difference{{Cell: 1, Line: 1, Was: "1"}}},
		{"a time", one([]string{measured}, table("1 ms")), one([]string{measured}, table("2 ms")), 1, []Difference{{Cell: 1, Line: 1, Was: "1 ms", Is: "2 ms", Measured: true}}},
		{"what goes to stderr", one(nil, table("1"), stream("stderr", "a")), one(nil, table("1"), stream("stderr", "b")), 1, nil},
		{"a picture of the same numbers", one(nil, display("image/png", "a")), one(nil, display("image/png", "b")), 1, nil},
	} {
		compared, got := compare(test.before, test.after)
		if compared != test.compared {
			t.Errorf("%s: %d cells were compared, want %d", test.name, compared, test.compared)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// Figures of the same numbers that look otherwise are no other results, and are said.
func TestRedrawn(t *testing.T) {
	figure := func(svg, text string) map[string]any {
		return map[string]any{"output_type": "display_data", "data": map[string]any{"image/svg+xml": svg, "image/png": svg, "text/plain": text}}
	}
	one := func(tags []string, outputs ...map[string]any) *Notebook {
		return notebook(t, map[string]any{}, tags, outputs...)
	}
	for _, test := range []struct {
		name          string
		before, after *Notebook
		want          []int
	}{
		{"the same", one(nil, figure("<svg>a", "1")), one(nil, figure("<svg>a", "1")), nil},
		{"drawn otherwise", one(nil, figure("<svg>a", "1")), one(nil, figure("<svg>b", "1")), []int{1}},
		{"another number", one(nil, figure("<svg>a", "1")), one(nil, figure("<svg>b", "2")), nil}, // compare tells
		{"a time", one([]string{measured}, figure("<svg>a", "1")), one([]string{measured}, figure("<svg>b", "1")), nil},
		{"pixels alone", one(nil, display("image/png", "a")), one(nil, display("image/png", "b")), nil},
		{"a figure less", one(nil, figure("<svg>a", "1"), figure("<svg>b", "")), one(nil, figure("<svg>a", "1")), []int{1}},
	} {
		if diff := cmp.Diff(test.want, redrawn(test.before, test.after)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	var out strings.Builder
	tell(&out, Result{Compared: 1, Redrawn: []int{7}}, true)
	if !strings.Contains(out.String(), "cell 7 draws the same numbers otherwise") {
		t.Errorf("told: %q", out.String())
	}
}

// Prose in between does not count, and cells have the numbers that a reader counts.
func TestCompareCountsAllCells(t *testing.T) {
	cells := func(text string) *Notebook {
		code := map[string]any{"cell_type": "code", "source": "run()", "metadata": map[string]any{}, "outputs": []any{stream("stdout", text)}}
		return ofCells(t, map[string]any{}, map[string]any{"cell_type": "markdown", "source": text}, code)
	}
	compared, got := compare(cells("a"), cells("b"))
	if compared != 1 || len(got) != 1 || got[0].Cell != 2 {
		t.Errorf("%d cells were compared, differences %v; want one of one, in cell 2", compared, got)
	}
}

func TestTell(t *testing.T) {
	r := Result{Compared: 3, Differences: []Difference{{Cell: 4, Line: 2, Was: "accuracy   98.27", Is: "accuracy   98.05"}, {Cell: 9, Measured: true}}}
	for _, test := range []struct {
		failures bool
		want     string
	}{
		{false, `  1 of 3 outputs are what the notebook held
  cell 4 has another output: line 2 was "accuracy 98.27" and is "accuracy 98.05"
  cell 9 measures times or the machine, and has others now
`},
		{true, `  1 of 3 outputs are what the notebook held
  cell 9 measures times or the machine, and has others now
`},
	} {
		var got strings.Builder
		tell(&got, r, test.failures)
		if diff := cmp.Diff(test.want, got.String()); diff != "" {
			t.Errorf("failures told: %v (-want +got):\n%s", test.failures, diff)
		}
	}
}

func TestOthers(t *testing.T) {
	got := others(3, []Difference{{Cell: 4, Line: 2, Was: "1", Is: "2"}, {Cell: 9, Measured: true}})
	want := []Failure{{4, `its output is not what the notebook held: line 2 was "1" and is "2"`}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	if got := others(0, nil); len(got) != 1 || !strings.Contains(got[0].Problem, "no outputs") {
		t.Errorf("of a notebook without outputs: %v, want one failure that says so", got)
	}
}

// What fast mode puts out is never what a notebook holds.
func TestSameIsOfFullMode(t *testing.T) {
	var usage *UsageError
	err := Run(t.Context(), setup.Paths{}, []string{"--fast", "--same", "any.ipynb"})
	if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--same") {
		t.Errorf("error = %v, want a *UsageError that names --same", err)
	}
}
