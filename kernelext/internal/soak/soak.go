// Package soak runs many cells in one kernel, and looks at what it holds: memory that grows, files and processes that are left.
package soak

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

//go:embed soak.py
var script string

// Sample is what the kernel's processes hold after a number of cells; or, at the end, what is left of them.
type Sample struct {
	Cells     int `json:"cells"`
	Processes int `json:"processes"`
	Of        map[string]struct {
		RSS   int64 `json:"rss"`
		Files int   `json:"files"`
	} `json:"of"`
	Left  int      `json:"left"`  // files in the directory for temporary files
	Wrong []string `json:"wrong"` // cells that ended in another way than they should

	End   bool     `json:"end"`
	Alive []string `json:"alive"` // processes
	Files []string `json:"files"`
}

// Run runs cells and returns the samples, the one of the end last.
func Run(ctx context.Context, p setup.Paths, cells int) ([]Sample, error) {
	dir, err := os.MkdirTemp("", "esoak-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	request, err := json.Marshal(map[string]any{"kernel": setup.KernelName, "cells": cells, "directory": dir})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.Python, "-c", script)
	cmd.Env = p.Env()
	setup.OwnGroup(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the cells did not run: %w: %s", err, stderr.String())
	}
	var samples []Sample
	for d := json.NewDecoder(&stdout); d.More(); {
		var s Sample
		if err := d.Decode(&s); err != nil {
			return samples, err
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// Judge says what is wrong with samples, a line each. gopls is left out: it is a cache, and bounds itself.
func Judge(samples []Sample) []string {
	var problems []string
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if len(samples) < 4 || !samples[len(samples)-1].End {
		return []string{"the run did not come to its end"}
	}
	end, samples := samples[len(samples)-1], samples[:len(samples)-1]
	// The first tenth fills caches; from the second on nothing may grow.
	early, late := samples[1], samples[len(samples)-1]
	for name, after := range late.Of {
		before, there := early.Of[name]
		if name == "gopls" {
			continue
		}
		if !there {
			wrong("after %d cells there is a process %s that was not there after %d", late.Cells, name, early.Cells)
			continue
		}
		if grown := after.RSS - before.RSS; grown > before.RSS/4+16<<20 {
			wrong("%s grew from %d MB after %d cells to %d MB after %d", name, before.RSS>>20, early.Cells, after.RSS>>20, late.Cells)
		}
		if after.Files > before.Files+4 {
			wrong("%s has %d files open after %d cells, %d after %d", name, before.Files, early.Cells, after.Files, late.Cells)
		}
	}
	// GoNB leaves a named pipe now and then, which is removed within a minute.
	if late.Left > early.Left+4 {
		wrong("%d temporary files after %d cells, %d after %d", early.Left, early.Cells, late.Left, late.Cells)
	}
	for _, w := range late.Wrong {
		wrong("a cell ended in another way than it should: %s", w)
	}
	if len(end.Alive) > 0 {
		wrong("still alive after the kernel has ended: %s", strings.Join(end.Alive, ", "))
	}
	// What the go command and gopls cache is theirs.
	files := slices.DeleteFunc(end.Files, func(f string) bool { return strings.HasPrefix(f, "gopls") })
	if len(files) > 0 {
		wrong("left in the directory for temporary files: %s", strings.Join(files, ", "))
	}
	return problems
}
