package bundle_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/bundle"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A notebook and its records are packed, and opened elsewhere.
func Example() {
	dir, err := os.MkdirTemp("", "")
	must(err)
	defer os.RemoveAll(dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	must(os.WriteFile(at("prune.ipynb"), []byte(`{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}`), 0o644))
	must(os.Mkdir(at("compare"), 0o755))
	must(os.WriteFile(at("compare/records.jsonl"), []byte("{}\n"), 0o644))

	must(bundle.Export(context.Background(), []string{at("prune.ipynb"), "--run", at("compare"), "-o", at("prune.tar.gz")}, io.Discard))
	var said strings.Builder
	must(bundle.Open(context.Background(), []string{at("prune.tar.gz"), "-o", at("elsewhere")}, &said))
	for line := range strings.Lines(said.String()) {
		if strings.HasPrefix(line, "  ") {
			fmt.Print(strings.ReplaceAll(line, dir+"/", ""))
		}
	}
	// Output:
	//   notebook  prune.ipynb, 65 bytes
	//   records   1, 3 bytes
	//   espalier run elsewhere/notebooks/prune.ipynb
}
