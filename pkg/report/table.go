// Package report holds results as plain data: tables and records, with writers. It draws nothing and imports the standard library only.
package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode"
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

// Table is rows under columns. Numbers are aligned to the right. Text and Markdown write it for people, CSV and JSON for programs; the same table is
// always written as the same bytes.
type Table struct {
	Title   string
	Columns []Column
	Rows    [][]any // a nil cell is empty
	Caption string  // what a reader has to know to read it
}

// RowError says that a row does not fit its table.
type RowError struct{ Row, Want, Got int } // Row: from 0

func (e *RowError) Error() string {
	return fmt.Sprintf("row %d has %d cells, the table has %d columns: give each row a cell for each column, nil for an empty one", e.Row, e.Got, e.Want)
}

// FormatError says that a cell can't be written with the format of its column.
type FormatError struct {
	Row            int // from 0
	Column, Format string
	Value          any
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("row %d, column %q: %T does not fit the format %q: change the column's format or the cell's type", e.Row, e.Column, e.Value, e.Format)
}

// Cells returns the formatted rows, or a *RowError or *FormatError.
func (t Table) Cells() ([][]string, error) {
	rows := make([][]string, len(t.Rows))
	for i, row := range t.Rows {
		if len(row) != len(t.Columns) {
			return nil, &RowError{i, len(t.Columns), len(row)}
		}
		for j, cell := range row {
			text, err := t.format(i, j, cell)
			if err != nil {
				return nil, err
			}
			rows[i] = append(rows[i], text)
		}
	}
	return rows, nil
}

func (t Table) format(row, column int, cell any) (string, error) {
	format := t.Columns[column].Format
	switch word := cell.(type) {
	case nil:
		return "", nil
	case string: // a format for numbers does not have to fit a word that stands in their place, such as "total"
		return word, nil
	}
	if format == "" {
		return fmt.Sprint(cell), nil
	}
	text := fmt.Sprintf(format, cell)
	if strings.Contains(text, "%!") { // how fmt says that verb and value do not agree
		return "", &FormatError{row, t.Columns[column].Name, format, cell}
	}
	return text, nil
}

// Numeric tells which columns hold numbers and nothing else.
func (t Table) Numeric() []bool {
	numeric := make([]bool, len(t.Columns))
	for j := range numeric {
		for _, row := range t.Rows {
			if j >= len(row) || row[j] == nil {
				continue
			}
			if numeric[j] = isNumber(row[j]); !numeric[j] {
				break
			}
		}
	}
	return numeric
}

func isNumber(cell any) bool {
	if _, ok := cell.(Summary); ok {
		return true
	}
	v := reflect.ValueOf(cell)
	return v.CanInt() || v.CanUint() || v.CanFloat()
}

// Text writes the table aligned, for terminals.
func (t Table) Text(w io.Writer) error {
	rows, err := t.Cells()
	if err != nil {
		return err
	}
	header := make([]string, len(t.Columns))
	widths := make([]int, len(t.Columns))
	for j, c := range t.Columns {
		header[j] = oneLine(c.Title())
		widths[j] = utf8.RuneCountInString(header[j])
		for _, row := range rows {
			row[j] = oneLine(row[j])
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

// oneLine keeps a cell from breaking its row, or a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

var markdown = strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "`", "\\`", "[", `\[`, "~", `\~`, "<", "&lt;", "&", "&amp;")

// Markdown writes the table in GitHub's Markdown. What would be read as markup is escaped.
func (t Table) Markdown(w io.Writer) error {
	rows, err := t.Cells()
	if err != nil {
		return err
	}
	escape := func(s string) string { return markdown.Replace(oneLine(s)) }
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	if t.Title != "" {
		b.WriteString("**" + escape(t.Title) + "**\n\n")
	}
	var header, rule []string
	for j, numeric := range t.Numeric() {
		header = append(header, escape(t.Columns[j].Title()))
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
			row[j] = escape(row[j])
		}
		line(row)
	}
	if t.Caption != "" {
		b.WriteString("\n" + escape(t.Caption) + "\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// CSV writes the columns' titles and the rows as RFC 4180 has it, lines ending in CR LF. Numbers are written in full, whatever their column's format,
// for programs to read: 15470264320, not 15,470,264,320. A Summary is written as its text; JSON has all of it. Title and caption are left out.
func (t Table) CSV(w io.Writer) error {
	rows, err := t.Cells()
	if err != nil {
		return err
	}
	c := csv.NewWriter(w)
	c.UseCRLF = true
	var header []string
	for _, column := range t.Columns {
		header = append(header, column.Title())
	}
	if err := c.Write(header); err != nil {
		return err
	}
	for i, row := range t.Rows {
		for j, cell := range row {
			if number, ok := exact(cell); ok {
				rows[i][j] = number
			}
		}
	}
	return c.WriteAll(rows)
}

// exact writes a number in full. A number that has a text of its own, such as a time.Duration, is none here.
func exact(cell any) (string, bool) {
	if _, isCount := cell.(Count); !isCount {
		if _, isText := cell.(fmt.Stringer); isText {
			return "", false
		}
	}
	switch v := reflect.ValueOf(cell); {
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), true
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10), true
	case v.CanFloat():
		return strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits()), true
	}
	return "", false
}

// Count is a whole number that is shown with a comma before every third digit from the right: 138,357,544.
type Count int64

// Format implements fmt.Formatter.
func (c Count) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// String writes the number with its commas.
func (c Count) String() string {
	digits := strconv.FormatInt(int64(c), 10)
	sign := ""
	if c < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
