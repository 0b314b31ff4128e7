package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// number is a float64 in JSON, which has no NaN and no infinities: they are written as the strings "NaN", "+Inf" and "-Inf". Whole numbers are written
// with ".0", so that they come back as what they were.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) { return []byte(floatJSON(float64(n), 64)), nil }

func floatJSON(x float64, bits int) string {
	text := strconv.FormatFloat(x, 'g', -1, bits)
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return strconv.Quote(text)
	case !strings.ContainsAny(text, ".e"):
		return text + ".0"
	}
	return text
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(data []byte) error {
	var word string
	if json.Unmarshal(data, &word) == nil {
		if x, ok := special[word]; ok {
			*n = number(x)
			return nil
		}
		return fmt.Errorf("expected a number, got %s", data)
	}
	var x *float64
	if err := json.Unmarshal(data, &x); err != nil {
		return err
	}
	if x == nil {
		return fmt.Errorf("expected a number, got null")
	}
	*n = number(*x)
	return nil
}

var special = map[string]float64{"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1)}

type jsonTable struct {
	Title   string       `json:"title,omitempty"`
	Columns []jsonColumn `json:"columns"`
	Rows    [][]any      `json:"rows"`
	Caption string       `json:"caption,omitempty"`
}

type jsonColumn struct {
	Name   string `json:"name"`
	Unit   string `json:"unit,omitempty"`
	Format string `json:"format,omitempty"`
	Counts bool   `json:"counts,omitempty"` // its whole numbers are of type Count
}

type jsonSummary struct {
	N      int    `json:"n"`
	Mean   number `json:"mean"`
	Std    number `json:"std"`
	StdErr number `json:"stderr"`
	Min    number `json:"min"`
	Max    number `json:"max"`
}

// JSON writes the table as an object, indented; see MarshalJSON.
func (t Table) JSON(w io.Writer) error {
	compact, err := t.MarshalJSON()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = b.WriteTo(w)
	return err
}

// MarshalJSON implements json.Marshaler. Cells are values, not text; NaN and the infinities, for which JSON has no numbers, are the strings "NaN",
// "+Inf" and "-Inf". A value of a type that UnmarshalJSON does not name is written as its text. The error is a *RowError or a *FormatError.
func (t Table) MarshalJSON() ([]byte, error) {
	text, err := t.Cells()
	if err != nil {
		return nil, err
	}
	out := jsonTable{Title: t.Title, Caption: t.Caption, Columns: make([]jsonColumn, len(t.Columns)), Rows: make([][]any, len(t.Rows))}
	for j, c := range t.Columns {
		out.Columns[j] = jsonColumn{Name: c.Name, Unit: c.Unit, Format: c.Format}
	}
	for i, row := range t.Rows {
		out.Rows[i] = make([]any, len(row))
		for j, cell := range row {
			out.Rows[i][j] = text[i][j]
			switch x := cell.(type) {
			case nil, bool, string:
				out.Rows[i][j] = cell
			case Summary:
				out.Rows[i][j] = jsonSummary{x.N, number(x.Mean), number(x.Std), number(x.StdErr), number(x.Min), number(x.Max)}
			case float64:
				out.Rows[i][j] = number(x)
			case float32:
				out.Rows[i][j] = json.RawMessage(floatJSON(float64(x), 32))
			default:
				if digits, ok := exact(cell); ok {
					_, isCount := cell.(Count)
					out.Columns[j].Counts = out.Columns[j].Counts || isCount
					out.Rows[i][j] = json.Number(digits)
				}
			}
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler for what JSON wrote. Cells are nil, bool, string, int64, uint64 where int64 is too small, float64, Count or
// Summary: the table writes the same text, CSV and JSON as the one that was written, but that whole numbers in a column that has some Count
// are written as such. The words "NaN", "+Inf" and "-Inf" are read as numbers.
// A ragged row is a *RowError.
func (t *Table) UnmarshalJSON(data []byte) error {
	var in struct {
		jsonTable
		Rows [][]json.RawMessage `json:"rows"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	out := Table{Title: in.Title, Caption: in.Caption}
	for _, c := range in.Columns {
		out.Columns = append(out.Columns, Column{Name: c.Name, Unit: c.Unit, Format: c.Format})
	}
	for i, row := range in.Rows {
		if len(row) != len(out.Columns) {
			return &RowError{i, len(out.Columns), len(row)}
		}
		cells := make([]any, len(row))
		for j, cell := range row {
			var err error
			if cells[j], err = readCell(cell, in.Columns[j].Counts); err != nil {
				return fmt.Errorf("row %d, column %q: %w", i, out.Columns[j].Name, err)
			}
		}
		out.Rows = append(out.Rows, cells)
	}
	*t = out
	return nil
}

func readCell(data json.RawMessage, counts bool) (any, error) {
	if data[0] == '{' {
		var s jsonSummary
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		return Summary{s.N, float64(s.Mean), float64(s.Std), float64(s.StdErr), float64(s.Min), float64(s.Max)}, nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var cell any
	if err := d.Decode(&cell); err != nil {
		return nil, err
	}
	switch x := cell.(type) {
	case string:
		if f, ok := special[x]; ok {
			return f, nil
		}
	case json.Number:
		if i, err := strconv.ParseInt(x.String(), 10, 64); err == nil {
			if counts {
				return Count(i), nil
			}
			return i, nil
		}
		if u, err := strconv.ParseUint(x.String(), 10, 64); err == nil {
			return u, nil
		}
		return x.Float64()
	case []any:
		return nil, fmt.Errorf("expected a cell, got a list")
	}
	return cell, nil
}
