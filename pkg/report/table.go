// Package report holds results as plain data: tables and records, with writers. It draws nothing and imports the standard library only.
package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Column describes one column of a table.
type Column struct {
	Name   string
	Unit   string // shown after the name, in parentheses
	Format string // fmt verb of its cells. Default: "%v"
}

// Title returns the column's name with its unit.
func (c Column) Title() string {
	if c.Unit == "" {
		return c.Name
	}
	return c.Name + " (" + c.Unit + ")"
}

// Table is rows under columns. Numbers are aligned to the right.
type Table struct {
	Title   string
	Columns []Column
	Rows    [][]any // a nil cell is empty
	Caption string  // what a reader has to know to read it
}

// RowError says that a row does not fit its table.
type RowError struct{ Row, Want, Got int }

func (e *RowError) Error() string {
	return fmt.Sprintf("row %d has %d cells, the table has %d columns", e.Row, e.Got, e.Want)
}

// Cells returns the formatted rows, or a *RowError.
func (t Table) Cells() ([][]string, error) {
	rows := make([][]string, len(t.Rows))
	for i, row := range t.Rows {
		if len(row) != len(t.Columns) {
			return nil, &RowError{i, len(t.Columns), len(row)}
		}
		for j, cell := range row {
			text := ""
			if cell != nil {
				format := t.Columns[j].Format
				// A format for numbers does not have to fit a word that stands in their place, such as "total".
				if _, isText := cell.(string); format == "" || isText {
					format = "%v"
				}
				text = fmt.Sprintf(format, cell)
			}
			rows[i] = append(rows[i], text)
		}
	}
	return rows, nil
}

// Numeric tells which columns hold numbers and nothing else.
func (t Table) Numeric() []bool {
	numeric := make([]bool, len(t.Columns))
	for j := range numeric {
		for _, row := range t.Rows {
			if j >= len(row) || row[j] == nil {
				continue
			}
			switch reflect.TypeOf(row[j]).Kind() {
			case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
				reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
				numeric[j] = true
				continue
			}
			if _, isSummary := row[j].(Summary); isSummary {
				numeric[j] = true
				continue
			}
			if _, isCount := row[j].(Count); isCount {
				numeric[j] = true
				continue
			}
			numeric[j] = false
			break
		}
	}
	return numeric
}

// Text writes the table aligned, for terminals.
func (t Table) Text(w io.Writer) error {
	rows, err := t.Cells()
	if err != nil {
		return err
	}
	widths := make([]int, len(t.Columns))
	header := make([]string, len(t.Columns))
	for j, c := range t.Columns {
		header[j] = c.Title()
		widths[j] = utf8.RuneCountInString(header[j])
		for _, row := range rows {
			widths[j] = max(widths[j], utf8.RuneCountInString(row[j]))
		}
	}
	numeric := t.Numeric()
	var b strings.Builder
	line := func(cells []string) {
		var l strings.Builder
		for j, cell := range cells {
			if j > 0 {
				l.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if numeric[j] {
				l.WriteString(pad + cell)
			} else {
				l.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	if t.Title != "" {
		b.WriteString(t.Title + "\n")
	}
	line(header)
	rule := make([]string, len(widths))
	for j, width := range widths {
		rule[j] = strings.Repeat("-", width)
	}
	line(rule)
	for _, row := range rows {
		line(row)
	}
	if t.Caption != "" {
		b.WriteString(t.Caption + "\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// Markdown writes the table in GitHub's Markdown.
func (t Table) Markdown(w io.Writer) error {
	rows, err := t.Cells()
	if err != nil {
		return err
	}
	escape := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;")
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	if t.Title != "" {
		b.WriteString("**" + escape.Replace(t.Title) + "**\n\n")
	}
	var header, rule []string
	for j, numeric := range t.Numeric() {
		header = append(header, escape.Replace(t.Columns[j].Title()))
		if numeric {
			rule = append(rule, "---:")
		} else {
			rule = append(rule, "---")
		}
	}
	line(header)
	line(rule)
	for _, row := range rows {
		for j := range row {
			row[j] = escape.Replace(row[j])
		}
		line(row)
	}
	if t.Caption != "" {
		b.WriteString("\n" + escape.Replace(t.Caption) + "\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// CSV writes the columns' names and the formatted cells as RFC 4180 has it.
func (t Table) CSV(w io.Writer) error {
	rows, err := t.Cells()
	if err != nil {
		return err
	}
	c := csv.NewWriter(w)
	var header []string
	for _, column := range t.Columns {
		header = append(header, column.Title())
	}
	if err := c.Write(header); err != nil {
		return err
	}
	return c.WriteAll(rows)
}

// JSON writes the table as an object with its cells as values. What JSON has no number for is written as the strings "NaN", "+Inf" and "-Inf".
func (t Table) JSON(w io.Writer) error {
	if _, err := t.Cells(); err != nil {
		return err
	}
	rows := make([][]any, len(t.Rows))
	for i, row := range t.Rows {
		for _, cell := range row {
			if f, ok := cell.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
				cell = fmt.Sprintf("%+v", f)
				if math.IsNaN(f) {
					cell = "NaN"
				}
			}
			rows[i] = append(rows[i], cell)
		}
	}
	t.Rows = rows
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(t)
}

// Count is a number that is shown with a thin separator at every third digit: 138,357,544.
type Count int64

// Format implements fmt.Formatter.
func (c Count) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// String writes the number with its separators.
func (c Count) String() string {
	digits := fmt.Sprint(int64(c))
	sign := ""
	if c < 0 {
		sign, digits = "-", digits[1:]
	}
	var groups []string
	for ; len(digits) > 3; digits = digits[:len(digits)-3] {
		groups = append([]string{digits[len(digits)-3:]}, groups...)
	}
	return sign + strings.Join(append([]string{digits}, groups...), ",")
}
