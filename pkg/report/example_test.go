package report_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/pkg/report"
)

func ExampleTable() {
	t := report.Table{
		Columns: []report.Column{{Name: "network"}, {Name: "parameters"}, {Name: "accuracy", Unit: "%"}},
		Rows: [][]any{
			{"dense", report.Count(266610), report.Summarize([]float64{98.16, 98.21, 98.26})},
			{"95% pruned", report.Count(13721), report.Summarize([]float64{97.90, 98.00, 98.10})},
		},
		Caption: "Mean ± standard deviation of 3 seeds.",
	}
	t.Text(os.Stdout)
	fmt.Println()
	t.Markdown(os.Stdout)
	// Output:
	// network     parameters  accuracy (%)
	// ----------  ----------  ------------
	// dense          266,610  98.21 ± 0.05
	// 95% pruned      13,721  98.00 ± 0.10
	// Mean ± standard deviation of 3 seeds.
	//
	// | network | parameters | accuracy (%) |
	// | --- | ---: | ---: |
	// | dense | 266,610 | 98.21 ± 0.05 |
	// | 95% pruned | 13,721 | 98.00 ± 0.10 |
	//
	// Mean ± standard deviation of 3 seeds.
}

// A table that was written as JSON is read back with the same types.
func ExampleTable_JSON() {
	t := report.Table{Columns: []report.Column{{Name: "layer"}, {Name: "weights"}}, Rows: [][]any{{"fc1", report.Count(235200)}}}
	t.JSON(os.Stdout)
	text, _ := json.Marshal(t)
	var back report.Table
	if err := json.Unmarshal(text, &back); err != nil {
		fmt.Println(err)
	}
	back.Text(os.Stdout)
	// Output:
	// {
	//   "columns": [
	//     {
	//       "name": "layer"
	//     },
	//     {
	//       "name": "weights",
	//       "counts": true
	//     }
	//   ],
	//   "rows": [
	//     [
	//       "fc1",
	//       235200
	//     ]
	//   ]
	// }
	// layer  weights
	// -----  -------
	// fc1    235,200
}

func ExampleGroup() {
	var records []report.Record
	for seed, accuracy := range []float64{98.16, 98.21, 98.26} {
		records = append(records,
			report.Record{Recipe: "magnitude", Seed: int64(seed), Values: map[string]float64{"accuracy": accuracy}},
			report.Record{Recipe: "random", Seed: int64(seed), Values: map[string]float64{"accuracy": accuracy / 2}})
	}
	for _, g := range report.Group(records, "accuracy", "recipe") {
		fmt.Println(g.Key[0], g.Summary, g.N)
	}
	// Output:
	// magnitude 98.21 ± 0.05 3
	// random 49.10 ± 0.03 3
}

// Records outlive the program that makes them.
func ExampleAppendRecord() {
	dir, err := os.MkdirTemp("", "records")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "curve.jsonl")
	if err := report.AppendRecord(path, report.Record{Recipe: "magnitude", Seed: 1, Values: map[string]float64{"accuracy": 98.21}}); err != nil {
		fmt.Println(err)
	}
	records, err := report.ReadRecords(path)
	fmt.Println(records[0].Recipe, records[0].Values["accuracy"], err)
	// Output: magnitude 98.21 <nil>
}
