package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"runtime"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/onnx"
	"github.com/espalier-ml/espalier/pkg/trace"

	"github.com/espalier-ml/espalier/datasets/mnist"
)

const widthsFile = "widths.json"

func (s settings) widthsDir() string { return filepath.Join(s.work, "widths") }

// candidates are networks of several widths, the dense one first, which timeWidths has written.
func candidates(s settings, f family) ([]target, error) {
	var all []target
	for i, widths := range append([][]int{f.teacher.widths}, f.widths...) {
		role := "candidate"
		if i == 0 {
			role = teacherNet
		}
		name := f.name + "-" + widthsText(widths)
		all = append(all, target{name: name, path: filepath.Join(s.widthsDir(), name+".onnx"), m: manifest{Network: f.name, Role: role, Widths: widths}})
	}
	return all, nil
}

// timeWidths times networks with the values that they start from: only their widths matter.
func timeWidths(ctx context.Context, s settings) error {
	var err error
	if s.backend == nil {
		if s.backend, err = backend.Open(); err != nil {
			return err
		}
	}
	data, err := mnist.Open(mnist.Config{})
	if err != nil {
		return err
	}
	for _, f := range s.families {
		all, err := candidates(s, f)
		if err != nil {
			return err
		}
		for _, c := range all {
			fn := f.model(c.m.Widths)
			store, err := experiment.Init(experiment.Task{Backend: s.backend, Model: fn, Train: data.Train}, 1)
			if err != nil {
				return err
			}
			content, err := onnx.Marshal(s.backend, store, trace.Single(fn), onnx.Config{Name: c.name}, input(1))
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if _, err := keep(c.path, func(w io.Writer) error { _, err := w.Write(content); return err }); err != nil {
				return err
			}
		}
	}
	t := times{Machine: machine(), Rounds: s.rounds, Versions: map[string]string{"go": runtime.Version(), "gomlx": gomlxVersion()}}
	for threads := 1; threads <= min(2, runtime.NumCPU()); threads++ {
		part, err := inChild(ctx, s, threads)
		if err != nil {
			return err
		}
		t.Cells = append(t.Cells, part.Cells...)
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = keep(filepath.Join(s.out, widthsFile), func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err })
	return err
}
