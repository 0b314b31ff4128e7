// Package cell measures how long cells take in our kernel, in plain GoNB and in Python's, in one interleaved run.
package cell

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
	"github.com/espalier-ml/espalier/kernelext/internal/setup"
	"github.com/espalier-ml/espalier/pkg/report"
)

//go:embed cell.py
var script string

// The budgets, as medians in seconds on a quiet machine.
const (
	budgetMessage = 0.002 // what the proxy may add to a message
	budgetTrivial = 0.35
	budgetState   = 0.365 // of a cell with 4 MB of variables: 15 ms more
	budgetGoMLX   = 1.0
	budgetFirst   = 2.0
)

// The kernels that ours is measured against, besides setup.KernelName. Python's comes with JupyterLab.
const (
	plainName  = "plain"
	pythonName = "python3"
)

// sample is what the script prints for each cell.
type sample struct {
	Kernel  string  `json:"kernel"`
	Case    string  `json:"case"`
	Seconds float64 `json:"seconds"`
}

// Run measures. Arguments: -rounds N, --json FILE.
func Run(ctx context.Context, p setup.Paths, args []string) error {
	flags := flag.NewFlagSet("bench cell", flag.ContinueOnError)
	rounds := flags.Int("rounds", 9, "rounds")
	jsonFile := flags.String("json", "", "also write the samples to this file")
	if err := flags.Parse(args); err != nil {
		return &nbrun.UsageError{Problem: err.Error()}
	}
	// Plain GoNB: the same binary with the flags that its own installer writes, less the log, and the tools and Go command that a user has. It is given
	// our project as workspace, since it could not import it otherwise.
	dir, err := os.MkdirTemp("", "espalier-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	spec, err := json.Marshal(map[string]any{
		"argv":         append(p.GonbCommand(), "--kernel", "{connection_file}"),
		"display_name": "plain GoNB", "language": "go", "interrupt_mode": "message",
		"env": map[string]string{"PATH": p.Bin + string(os.PathListSeparator) + os.Getenv("PATH"), "ESPALIER_PROJECT": p.Project},
	})
	if err != nil {
		return err
	}
	plain := filepath.Join(dir, "kernels", plainName)
	if err := os.MkdirAll(plain, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(plain, "kernel.json"), spec, 0o644); err != nil {
		return err
	}
	request, err := json.Marshal(map[string]any{"kernels": []string{setup.KernelName, plainName, pythonName}, "rounds": *rounds})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, p.Python, "-c", script)
	cmd.Env = append(p.Env(), "JUPYTER_PATH="+p.JupyterData+string(os.PathListSeparator)+dir)
	setup.OwnGroup(cmd)
	var stdout bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("bench cell: %w", err)
	}
	var samples []sample
	for d := json.NewDecoder(&stdout); d.More(); {
		var s sample
		if err := d.Decode(&s); err != nil {
			return err
		}
		samples = append(samples, s)
	}
	if *jsonFile != "" {
		data, err := json.MarshalIndent(samples, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*jsonFile, data, 0o644); err != nil {
			return err
		}
	}
	return table(samples).Text(os.Stdout)
}

func table(samples []sample) report.Table {
	t := report.Table{
		Title: "Seconds a cell (median, least and greatest)",
		Columns: []report.Column{{Name: "cell"}, {Name: "Espalier", Format: "%.4f"}, {Name: "least", Format: "%.4f"}, {Name: "greatest", Format: "%.4f"},
			{Name: "plain GoNB", Format: "%.4f"}, {Name: "ratio", Format: "%.2f"}, {Name: "ipykernel", Format: "%.4f"}, {Name: "budget", Format: "%.4f"}, {Name: "n"}},
		Caption: "The kernels in turn, in shuffled order. Plain GoNB evaluates all variables in each cell; the others keep them. The budget is for a quiet machine.",
	}
	for _, c := range []struct {
		name   string
		budget float64
	}{
		{"kernel_info", budgetMessage}, {"command", 0}, {"trivial", budgetTrivial}, {"counter", budgetTrivial}, {"4 MB read", budgetState}, {"4 MB changed", budgetState},
		{"GoMLX", budgetGoMLX}, {"first GoMLX cell of a kernel", budgetFirst},
	} {
		seconds := map[string][]float64{}
		for _, s := range samples {
			if s.Case == c.name {
				seconds[s.Kernel] = append(seconds[s.Kernel], s.Seconds)
			}
		}
		ours, plain := seconds[setup.KernelName], seconds[plainName]
		if len(ours) == 0 || len(plain) == 0 {
			continue
		}
		var python any
		if len(seconds[pythonName]) > 0 {
			python = median(seconds[pythonName])
		}
		a, b := median(ours), median(plain)
		budget := c.budget
		if budget == 0 {
			budget = b + budgetMessage // a command goes to GoNB and back, and nothing is compiled: what it takes more is the proxy's
		}
		t.Rows = append(t.Rows, []any{c.name, a, slices.Min(ours), slices.Max(ours), b, a / b, python, budget, len(ours)})
	}
	return t
}

func median(xs []float64) float64 {
	xs = slices.Sorted(slices.Values(xs))
	n := len(xs)
	return (xs[(n-1)/2] + xs[n/2]) / 2
}
