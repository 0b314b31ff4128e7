package nbrun

import (
	"fmt"
	"slices"
	"strings"
)

// measured is the tag of cells whose output tells of times or of the machine: it differs from run to run.
const measured = "measured"

// Difference is a cell that has other output than the notebook held before.
type Difference struct {
	Cell     int // from 1, in the order of all cells
	Line     int // from 1: the first line of its text that differs
	Was, Is  string
	Measured bool // it was to be expected, see measured
}

func (d Difference) String() string {
	return fmt.Sprintf("cell %d has another output: %s", d.Cell, d.what())
}

func (d Difference) what() string {
	return fmt.Sprintf("line %d was %q and is %q", d.Line, short(d.Was), short(d.Is))
}

// compare returns how many cells of a notebook that was executed had output before, and which of these have another now. It is the text of figures, tables and prints that is
// compared: how numbers are drawn is no other result (see redrawn).
func compare(before, after *Notebook) (compared int, differences []Difference) {
	for i, c := range after.Cells {
		if i >= len(before.Cells) || c.Type != "code" {
			continue
		}
		old, now := before.Cells[i].said(), c.said()
		if len(old) == 0 {
			continue
		}
		compared++
		n := 0
		for n < len(old) && n < len(now) && old[n] == now[n] {
			n++
		}
		if n == len(old) && n == len(now) {
			continue
		}
		d := Difference{Cell: i + 1, Line: n + 1, Measured: slices.Contains(c.Tags, measured)}
		if n < len(old) {
			d.Was = old[n]
		}
		if n < len(now) {
			d.Is = now[n]
		}
		differences = append(differences, d)
	}
	return compared, differences
}

// redrawn returns the cells that have the text that they had before, and other vector graphics.
func redrawn(before, after *Notebook) (cells []int) {
	for i, c := range after.Cells {
		if i >= len(before.Cells) || slices.Contains(c.Tags, measured) {
			continue
		}
		old := before.Cells[i]
		if drawn := old.drawn(); len(drawn) > 0 && slices.Equal(old.said(), c.said()) && !slices.Equal(drawn, c.drawn()) {
			cells = append(cells, i+1)
		}
	}
	return cells
}

// others are the differences that are failures where outputs should be the same, and that there is nothing to compare with.
func others(compared int, differences []Difference) []Failure {
	if compared == 0 {
		return []Failure{{Problem: "it holds no outputs to compare with; execute it without --same"}}
	}
	var failures []Failure
	for _, d := range differences {
		if !d.Measured {
			failures = append(failures, Failure{d.Cell, "its output is not what the notebook held: " + d.what()})
		}
	}
	return failures
}

// said returns the lines of text that a cell puts out.
func (c *Cell) said() []string {
	var lines []string
	for _, o := range c.Outputs {
		said := text(o.Data["text/plain"])
		if o.Type == "stream" && o.Name == "stdout" {
			said = o.Text
		}
		for line := range strings.Lines(said) {
			lines = append(lines, strings.TrimRight(line, " \r\n"))
		}
	}
	return lines
}

// drawn returns a cell's figures as vector graphics. Pictures of pixels hang on how they are compressed.
func (c *Cell) drawn() []string {
	var all []string
	for _, o := range c.Outputs {
		if svg := text(o.Data["image/svg+xml"]); svg != "" {
			all = append(all, svg)
		}
	}
	return all
}

func short(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	if runes := []rune(line); len(runes) > 90 {
		return string(runes[:89]) + "…"
	}
	return line
}
