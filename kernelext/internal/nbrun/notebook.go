package nbrun

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/store"
)

// Notebook is what we read of nbformat 4. Fields that it does not name are kept as they are in Raw.
type Notebook struct {
	Cells []*Cell
	raw   map[string]json.RawMessage
}

// Cell of a notebook.
type Cell struct {
	Type    string
	Source  string
	Tags    []string
	Outputs []Output
	raw     map[string]any
}

// runs tells whether a cell has anything to run.
func (c *Cell) runs() bool { return c.Type == "code" && strings.TrimSpace(c.Source) != "" }

// mayFail tells whether a cell is there to fail.
func (c *Cell) mayFail() bool { return slices.Contains(c.Tags, "raises-exception") }

// Output of a code cell.
type Output struct {
	Type string // stream, display_data, execute_result, error
	Name string // of a stream: stdout, stderr
	Text string // of a stream or an error
	Data map[string]any
}

// Expect is what a notebook's metadata says that it puts out, under espalier.expect; a run with less is a failure.
type Expect struct {
	Figures int `json:"figures"`
	Tables  int `json:"tables"`
}

// FormatError says that a file is no notebook.
type FormatError struct {
	Path    string
	Problem string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s is no Jupyter notebook: %s; give the path of an .ipynb file", e.Path, e.Problem)
}

// read parses a notebook.
func read(path string, data []byte) (*Notebook, error) {
	nb := &Notebook{}
	if err := json.Unmarshal(data, &nb.raw); err != nil {
		return nil, &FormatError{path, fmt.Sprintf("it is no JSON (%v)", err)}
	}
	var format int
	if json.Unmarshal(nb.raw["nbformat"], &format) != nil || format != 4 {
		return nil, &FormatError{path, "its nbformat is not 4"}
	}
	var cells []map[string]any
	if err := json.Unmarshal(nb.raw["cells"], &cells); err != nil {
		return nil, &FormatError{path, "it has no list of cells"}
	}
	for i, raw := range cells {
		c := &Cell{raw: raw, Source: text(raw["source"])}
		c.Type, _ = raw["cell_type"].(string)
		if !slices.Contains([]string{"code", "markdown", "raw"}, c.Type) {
			return nil, &FormatError{path, fmt.Sprintf("cell %d has the type %q", i+1, c.Type)}
		}
		if meta, ok := raw["metadata"].(map[string]any); ok {
			if tags, ok := meta["tags"].([]any); ok {
				for _, tag := range tags {
					c.Tags = append(c.Tags, fmt.Sprint(tag))
				}
			}
		}
		outputs, _ := raw["outputs"].([]any)
		for _, o := range outputs {
			m, ok := o.(map[string]any)
			if !ok {
				return nil, &FormatError{path, fmt.Sprintf("cell %d has an output that is no object", i+1)}
			}
			out := Output{Data: map[string]any{}}
			out.Type, _ = m["output_type"].(string)
			out.Name, _ = m["name"].(string)
			out.Text = text(m["text"])
			if out.Type == "error" {
				out.Text = fmt.Sprintf("%v: %v\n%s", m["ename"], m["evalue"], text(m["traceback"]))
			}
			if data, ok := m["data"].(map[string]any); ok {
				out.Data = data
			}
			c.Outputs = append(c.Outputs, out)
		}
		nb.Cells = append(nb.Cells, c)
	}
	return nb, nil
}

// text joins what nbformat gives as a string or as a list of lines.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var b strings.Builder
		for _, line := range v {
			fmt.Fprint(&b, line)
		}
		return b.String()
	}
	return ""
}

// expect returns what the notebook says that it puts out.
func (nb *Notebook) expect() Expect {
	var meta struct {
		Espalier struct {
			Expect Expect `json:"expect"`
		} `json:"espalier"`
	}
	_ = json.Unmarshal(nb.raw["metadata"], &meta) // without metadata it expects nothing
	return meta.Espalier.Expect
}

// normalized returns the notebook as it is to be stored: cells counted from 1, nothing in it that differs between two runs by itself.
func (nb *Notebook) normalized() ([]byte, error) {
	count := 0
	cells := make([]map[string]any, len(nb.Cells))
	for i, c := range nb.Cells {
		cells[i] = c.raw
		if c.Type != "code" {
			continue
		}
		count++
		if c.raw["execution_count"] != nil {
			c.raw["execution_count"] = count
		}
		outputs, _ := c.raw["outputs"].([]any)
		for _, o := range outputs {
			if m, ok := o.(map[string]any); ok {
				if m["output_type"] == "execute_result" {
					m["execution_count"] = count
				}
				delete(m, "transient")
			}
		}
	}
	var metadata map[string]any
	if err := json.Unmarshal(nb.raw["metadata"], &metadata); err != nil {
		metadata = map[string]any{}
	}
	metadata["kernelspec"] = map[string]any{"display_name": "Go (Espalier)", "language": "go", "name": "espalier"}
	metadata["language_info"] = map[string]any{"file_extension": ".go", "mimetype": "text/x-go", "name": "go"}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(map[string]any{"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
	return b.Bytes(), err
}

// writeFile writes a file whole or not at all.
func writeFile(path string, data []byte) error {
	return store.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
