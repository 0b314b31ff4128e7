package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// awkward holds what tends to break writers.
func awkward() Table {
	return Table{
		Title:   "a*b",
		Columns: []Column{{Name: "name"}, {Name: "loss", Unit: "nats", Format: "%.2f"}, {Name: "size"}, {Name: "accuracy", Unit: "%", Format: "%.1f"}, {Name: "ok"}},
		Rows: [][]any{
			{`a|b \ c`, 1.0, Count(138357544), Summary{3, 98.25, 0.5, 0.25, 97, 99}, true},
			{"two\nlines, \"quoted\"", math.NaN(), 7, Summary{N: 1, Mean: 98}, false},
			{"", math.Inf(1), nil, nil, nil},
			{"π <b>&", 0.1, Count(-1000), Summarize(nil), nil},
		},
		Caption: "c_d",
	}
}

func write(t *testing.T, writer func(w *bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := writer(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	got := write(t, func(b *bytes.Buffer) error { return awkward().Text(b) })
	want := `a*b
name                 loss (nats)         size  accuracy (%)  ok
-------------------  -----------  -----------  ------------  -----
a|b \ c                     1.00  138,357,544    98.2 ± 0.5  true
two lines, "quoted"          NaN            7          98.0  false
                            +Inf
π <b>&                      0.10       -1,000           NaN
c_d
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestMarkdown(t *testing.T) {
	got := write(t, func(b *bytes.Buffer) error { return awkward().Markdown(b) })
	want := `**a\*b**

| name | loss (nats) | size | accuracy (%) | ok |
| --- | ---: | ---: | ---: | --- |
| a\|b \\ c | 1.00 | 138,357,544 | 98.2 ± 0.5 | true |
| two lines, "quoted" | NaN | 7 | 98.0 | false |
|  | +Inf |  |  |  |
| π &lt;b>&amp; | 0.10 | -1,000 | NaN |  |

c_d
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestCSV(t *testing.T) {
	table := awkward()
	table.Rows = append(table.Rows, []any{1.0 / 3, float32(0.1), uint64(math.MaxUint64), nil, time.Second})
	text := write(t, func(b *bytes.Buffer) error { return table.CSV(b) })
	if lines := strings.Count(text, "\r\n"); lines != 7 || strings.Count(text, "\n") != lines { // 6 rows and the break in a cell
		t.Errorf("RFC 4180 ends lines with CR LF; got %q", text)
	}
	got, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"name", "loss (nats)", "size", "accuracy (%)", "ok"},
		{`a|b \ c`, "1", "138357544", "98.2 ± 0.5", "true"},
		{"two\nlines, \"quoted\"", "NaN", "7", "98.0", "false"},
		{"", "+Inf", "", "", ""},
		{"π <b>&", "0.1", "-1000", "NaN", ""},
		{"0.3333333333333333", "0.1", "18446744073709551615", "", "1s"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	writers := map[string]func(Table) func(*bytes.Buffer) error{
		"Text":     func(t Table) func(*bytes.Buffer) error { return func(b *bytes.Buffer) error { return t.Text(b) } },
		"Markdown": func(t Table) func(*bytes.Buffer) error { return func(b *bytes.Buffer) error { return t.Markdown(b) } },
		"CSV":      func(t Table) func(*bytes.Buffer) error { return func(b *bytes.Buffer) error { return t.CSV(b) } },
		"JSON":     func(t Table) func(*bytes.Buffer) error { return func(b *bytes.Buffer) error { return t.JSON(b) } },
	}
	table := awkward()
	table.Columns = append(table.Columns, Column{Name: "any"})
	for i, cell := range []any{int64(math.MaxInt64), uint64(math.MaxUint64), 1e300, float32(0.1)} {
		table.Rows[i] = append(table.Rows[i], cell)
	}
	var back Table
	if err := json.Unmarshal([]byte(write(t, writers["JSON"](table))), &back); err != nil {
		t.Fatal(err)
	}
	for name, writer := range writers {
		if before, after := write(t, writer(table)), write(t, writer(back)); before != after {
			t.Errorf("%s before:\n%s\nafter:\n%s", name, before, after)
		}
	}
	for j, want := range []any{"", int64(0), Count(0), Summary{}, true} {
		if j == 1 {
			want = 0.0 // a whole float64 stays one
		}
		if got := reflect.TypeOf(back.Rows[0][j]); got != reflect.TypeOf(want) {
			t.Errorf("column %d came back as %v, want %T", j, got, want)
		}
	}
	if x, ok := back.Rows[1][1].(float64); !ok || !math.IsNaN(x) {
		t.Errorf("NaN came back as %v", back.Rows[1][1])
	}
}

func TestBadTables(t *testing.T) {
	ragged := Table{Columns: []Column{{Name: "a"}, {Name: "b"}}, Rows: [][]any{{1, 2}, {3}}}
	misfit := Table{Columns: []Column{{Name: "a", Format: "%.2f"}}, Rows: [][]any{{"a word fits"}, {2}}}
	for name, writer := range map[string]func(Table) error{
		"Text":     func(t Table) error { return t.Text(&bytes.Buffer{}) },
		"Markdown": func(t Table) error { return t.Markdown(&bytes.Buffer{}) },
		"CSV":      func(t Table) error { return t.CSV(&bytes.Buffer{}) },
		"JSON":     func(t Table) error { return t.JSON(&bytes.Buffer{}) },
	} {
		var row *RowError
		if err := writer(ragged); !errors.As(err, &row) || *row != (RowError{Row: 1, Want: 2, Got: 1}) {
			t.Errorf("%s of a ragged table: %v", name, err)
		}
		var format *FormatError
		if err := writer(misfit); !errors.As(err, &format) || *format != (FormatError{1, "a", "%.2f", 2}) {
			t.Errorf("%s of a number that its format does not fit: %v", name, err)
		}
	}
	var row *RowError
	if err := json.Unmarshal([]byte(`{"columns":[{"name":"a"}],"rows":[[1,2]]}`), &Table{}); !errors.As(err, &row) {
		t.Errorf("reading a ragged table: %v", err)
	}
	for _, text := range []string{`{"columns":[{"name":"a"}],"rows":[[[1]]]}`, `{"columns":[{"name":"a"}],"rows":[[{"mean":"much"}]]}`, `[`} {
		table := Table{Title: "before"}
		if err := json.Unmarshal([]byte(text), &table); err == nil || table.Title != "before" {
			t.Errorf("%s was read as %v, %v", text, table, err)
		}
	}
}

func TestNumeric(t *testing.T) {
	table := Table{Columns: make([]Column, 6), Rows: [][]any{{1, "x", nil, Count(1), 1, nil}, {2.5, 1, nil, uint8(1), "x", Summary{}}}}
	if got, want := table.Numeric(), []bool{true, false, false, true, false, true}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSummarize(t *testing.T) {
	// 1, 2, 3, 6: mean 3, squares 4 + 1 + 0 + 9 = 14.
	want := Summary{N: 4, Mean: 3, Std: math.Sqrt(14.0 / 3), StdErr: math.Sqrt(14.0/3) / 2, Min: 1, Max: 6}
	if got := Summarize([]float64{1, 2, 3, 6}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := Summarize([]float64{5}), (Summary{N: 1, Mean: 5, Min: 5, Max: 5}); got != want {
		t.Errorf("one value: got %+v, want %+v", got, want)
	}
	for _, xs := range [][]float64{nil, {1, math.NaN(), 3}} {
		s := Summarize(xs)
		for _, x := range []float64{s.Mean, s.Std, s.StdErr, s.Min, s.Max} {
			if !math.IsNaN(x) {
				t.Errorf("Summarize(%v) = %+v, want NaN in all", xs, s)
			}
		}
		if s.N != len(xs) {
			t.Errorf("Summarize(%v).N = %d", xs, s.N)
		}
	}
}

func TestFormats(t *testing.T) {
	s := Summarize([]float64{98.16, 98.21, 98.26})
	for _, c := range []struct{ format, want string }{
		{"%v", "98.21 ± 0.05"}, {"%s", "98.21 ± 0.05"}, {"%.1f", "98.2 ± 0.1"}, {"%.4f", "98.2100 ± 0.0500"}, {"%.2g", "98 ± 0.05"}, {"%.1e", "9.8e+01 ± 5.0e-02"},
		{"%d", "%!d(report.Summary)"},
	} {
		if got := fmt.Sprintf(c.format, s); got != c.want {
			t.Errorf("%s: got %q, want %q", c.format, got, c.want)
		}
	}
	if got := s.String(); got != "98.21 ± 0.05" {
		t.Errorf("String() = %q", got)
	}
	for n, want := range map[Count]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -999: "-999", 1234567: "1,234,567", math.MinInt64: "-9,223,372,036,854,775,808"} {
		if got := fmt.Sprintf("%d %v", n, n); got != want+" "+want {
			t.Errorf("Count(%d) = %q, want %q twice", int64(n), got, want)
		}
	}
}

func TestGroup(t *testing.T) {
	var records []Record
	for i, x := range []float64{90, 91, 80, 92, 82} {
		recipe := map[bool]string{true: "random", false: "magnitude"}[x < 90]
		records = append(records, Record{Recipe: recipe, Seed: int64(i), Step: 7, Labels: map[string]string{"net": "LeNet-5"}, Values: map[string]float64{"accuracy": x, "sparsity": 0.9}})
	}
	records = append(records, Record{Recipe: "magnitude", Values: map[string]float64{"loss": 1}})
	got := Group(records, "accuracy", "recipe", "sparsity", "net", "step", "none")
	want := []Grouped{
		{[]string{"magnitude", "0.9", "LeNet-5", "7", ""}, Summarize([]float64{90, 91, 92})},
		{[]string{"random", "0.9", "LeNet-5", "7", ""}, Summarize([]float64{80, 82})},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := Group(records, "accuracy", "seed"); len(got) != 5 || got[4].Key[0] != "4" {
		t.Errorf("by seed: %+v", got)
	}
	if got := Group(records, "accuracy"); len(got) != 1 || got[0].N != 5 {
		t.Errorf("by nothing: %+v", got)
	}
}

// Groups whose keys give the same letters when they are strung together, as (a, bc) and (ab, c), stay two.
func TestGroupKeysAreApart(t *testing.T) {
	got := Group([]Record{
		{Labels: map[string]string{"p": "a", "q": "bc"}, Values: map[string]float64{"v": 1}},
		{Labels: map[string]string{"p": "ab", "q": "c"}, Values: map[string]float64{"v": 3}},
	}, "v", "p", "q")
	want := []Grouped{{[]string{"a", "bc"}, Summarize([]float64{1})}, {[]string{"ab", "c"}, Summarize([]float64{3})}}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func sample() []Record {
	return []Record{
		{Recipe: "magnitude", Seed: math.MaxInt64, Step: 3, Labels: map[string]string{"net": "a\nb"}, Values: map[string]float64{"accuracy": 0.1, "loss": math.Inf(1), "low": math.Inf(-1)}},
		{Recipe: "random"},
	}
}

func TestRecordFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "records.jsonl")
	if got, err := ReadRecords(path); got != nil || err != nil {
		t.Errorf("a file that is not there: %v, %v", got, err)
	}
	if err := WriteRecords(path, sample()[:1]); err != nil {
		t.Fatal(err)
	}
	if err := AppendRecord(path, sample()[1]); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecords(path)
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v, %v, want %+v", got, err, sample())
	}
	if err := WriteRecords(path, []Record{{Values: map[string]float64{"loss": math.NaN()}}}); err != nil {
		t.Fatal(err)
	}
	if got, err = ReadRecords(path); err != nil || len(got) != 1 || !math.IsNaN(got[0].Values["loss"]) {
		t.Errorf("NaN came back as %v, %v", got, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// A program may be killed after any byte of a line. What it wrote before is read, what it writes later too, and the torn line is reported.
func TestTornLine(t *testing.T) {
	whole := write(t, func(b *bytes.Buffer) error {
		return json.NewEncoder(b).Encode(sample()[0])
	})
	path := filepath.Join(t.TempDir(), "records.jsonl")
	for n := 1; n < len(whole); n++ {
		if err := os.WriteFile(path, []byte(whole+whole[:n]), 0o644); err != nil {
			t.Fatal(err)
		}
		isTorn, want := n < len(whole)-1, sample()[:1:1] // only its line break is missing: nothing is lost
		if !isTorn {
			want = append(want, sample()[0])
		}
		check := func(when string, want []Record) {
			got, err := ReadRecords(path)
			var torn *TornError
			if errors.As(err, &torn) != isTorn || isTorn && !reflect.DeepEqual(torn.Lines, []int{2}) || !isTorn && err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s after %d bytes: %v, %v", when, n, got, err)
			}
		}
		check("read", want)
		if err := AppendRecord(path, sample()[1]); err != nil {
			t.Fatal(err)
		}
		check("appended", append(want, sample()[1]))
	}
}

func TestNoRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.jsonl")
	text := "\n{\"other\": 1}\n{\"values\": {\"a\": \"b\"}}\n{\"values\": {\"a\": null}}\n7\n{\"recipe\": \"r\", \"seed\": 1, \"values\": {}}\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecords(path)
	var torn *TornError
	if !errors.As(err, &torn) || !reflect.DeepEqual(torn.Lines, []int{2, 3, 4, 5}) || len(got) != 1 || got[0].Recipe != "r" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What can't be put in place leaves no trace, and what was there stays.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteRecords(taken, sample()); err == nil {
		t.Error("a directory was replaced")
	}
	if err := AppendRecord(taken, sample()[0]); err == nil {
		t.Error("a record was appended to a directory")
	}
	if _, err := ReadRecords(taken); err == nil {
		t.Error("a directory was read")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// Two draws of seed 1 become one record, where the first was; a value that one of them has alone is that.
func TestMerge(t *testing.T) {
	record := func(method string, seed int64, values map[string]float64) Record {
		return Record{Recipe: method, Seed: seed, Step: int(seed), Labels: map[string]string{"method": strings.Split(method, ",")[0], "network": "n"}, Values: values}
	}
	records := []Record{record("random", 1, map[string]float64{"accuracy": 0.5, "before": 0.25}), record("L1", 1, map[string]float64{"accuracy": 0.75}), record("random", 2, map[string]float64{"accuracy": 1}),
		record("random, draw 2", 1, map[string]float64{"accuracy": 1, "loss": 2})}
	want := []Record{record("random", 1, map[string]float64{"accuracy": 0.75, "before": 0.25, "loss": 2}), record("L1", 1, map[string]float64{"accuracy": 0.75}), record("random", 2, map[string]float64{"accuracy": 1})}
	if diff := cmp.Diff(want, Merge(records)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if records[0].Values["accuracy"] != 0.5 {
		t.Error("it changed what it was given")
	}
	if got := Merge(nil); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}
