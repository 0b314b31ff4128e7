// Package benchtest checks what benchmarks have committed.
package benchtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/kernelext/internal/bench"
	"github.com/espalier-ml/espalier/pkg/report"
)

// Results is where records, tables and masks are committed, for the tests of a benchmark.
var Results = filepath.Join("..", "..", "..", "..", "notebooks", "results")

// Page fails a test unless the committed page NAME.md is what the committed records NAME.jsonl make, and returns those.
func Page(t *testing.T, name, head string, tables func([]report.Record) []report.Table) []report.Record {
	t.Helper()
	records, err := report.ReadRecords(filepath.Join(Results, name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(records) == 0 {
		t.Fatalf("no records of %s are committed", name)
	}
	want, err := bench.Page(head, tables(records))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(Results, name+".md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s.md: write it again from the records, see the options -json and -markdown (-want +got)\n%s", name, diff)
	}
	return records
}
