package setup

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os/exec"
)

//go:embed cells.py
var cellsScript string

// CellResult is what came of a cell.
type CellResult struct {
	Status  string  `json:"status"` // "ok" or "error", as the kernel says
	Output  string  `json:"output"`
	Seconds float64 `json:"seconds"`
}

// Cells runs cells in a fresh kernel.
func (p Paths) Cells(ctx context.Context, kernel string, cells []string) ([]CellResult, error) {
	request, err := json.Marshal(map[string]any{"kernel": kernel, "cells": cells})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, p.Python, "-c", cellsScript)
	cmd.Env = p.Env()
	OwnGroup(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("cells in kernel %q: %w: %s", kernel, err, tail(stderr.String(), 4))
	}
	var results []CellResult
	for d := json.NewDecoder(&stdout); d.More(); {
		var r CellResult
		if err := d.Decode(&r); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	if len(results) != len(cells) {
		return results, fmt.Errorf("%d of %d cells came back: %s", len(results), len(cells), tail(stderr.String(), 4))
	}
	return results, nil
}
