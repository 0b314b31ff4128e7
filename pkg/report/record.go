package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Record is one result, with what it takes to group it with others.
type Record struct {
	Recipe string             `json:"recipe"` // canonical name of what was done
	Seed   int64              `json:"seed"`
	Step   int                `json:"step,omitempty"`
	Labels map[string]string  `json:"labels,omitempty"`
	Values map[string]float64 `json:"values"` // finite numbers only
}

// Summary of a sample, usually over seeds.
type Summary struct {
	N                int
	Mean, Std        float64 // Std: of the sample (n − 1); 0 for one value
	StdErr, Min, Max float64
}

// Summarize returns the summary of a sample; all NaN for none.
func Summarize(xs []float64) Summary {
	s := Summary{N: len(xs), Mean: math.NaN(), Std: math.NaN(), StdErr: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	if len(xs) == 0 {
		return s
	}
	s.Min, s.Max = slices.Min(xs), slices.Max(xs)
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	s.Mean = sum / float64(len(xs))
	squares := 0.0
	for _, x := range xs {
		squares += (x - s.Mean) * (x - s.Mean)
	}
	s.Std, s.StdErr = 0, 0
	if n := float64(len(xs)); n > 1 {
		s.Std = math.Sqrt(squares / (n - 1))
		s.StdErr = s.Std / math.Sqrt(n)
	}
	return s
}

// String is the mean and the standard deviation with two digits after the point: 98.21 ± 0.05.
func (s Summary) String() string { return fmt.Sprintf("%.2f ± %.2f", s.Mean, s.Std) }

// Grouped is a summary of the records that agree in a key.
type Grouped struct {
	Key []string // in the order of the names given to Group
	Summary
}

// Group summarises a value over the records that agree in all of by: "recipe", "step", the name of a label, or the name of another value. Groups come in the
// order in which they first occur; records without the value are left out.
func Group(records []Record, value string, by ...string) []Grouped {
	var order []string
	keys := map[string][]string{}
	samples := map[string][]float64{}
	for _, r := range records {
		x, ok := r.Values[value]
		if !ok {
			continue
		}
		var key []string
		for _, name := range by {
			key = append(key, r.field(name))
		}
		id := strings.Join(key, "\x00")
		if _, seen := keys[id]; !seen {
			order = append(order, id)
			keys[id] = key
		}
		samples[id] = append(samples[id], x)
	}
	groups := make([]Grouped, len(order))
	for i, id := range order {
		groups[i] = Grouped{keys[id], Summarize(samples[id])}
	}
	return groups
}

func (r Record) field(name string) string {
	switch name {
	case "recipe":
		return r.Recipe
	case "step":
		return fmt.Sprint(r.Step)
	case "seed":
		return fmt.Sprint(r.Seed)
	}
	if x, ok := r.Values[name]; ok {
		return fmt.Sprint(x)
	}
	return r.Labels[name]
}

// WriteRecords writes records to a file, one JSON object a line, in place of what it held, whole or not at all.
func WriteRecords(path string, records []Record) (err error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for i, r := range records {
		if err := e.Encode(r); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".records-")
	if err != nil {
		return err
	}
	if _, err = f.Write(b.Bytes()); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// AppendRecord adds a record to a file of records, and returns when it is on the disk.
func AppendRecord(path string, r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	// After a torn line, which a killed program left, a new one must begin.
	if end, e := f.Seek(0, io.SeekEnd); e == nil && end > 0 {
		last := make([]byte, 1)
		if _, e := f.ReadAt(last, end-1); e == nil && last[0] != '\n' {
			line = append([]byte("\n"), line...)
		}
	}
	if _, err = f.Write(append(line, '\n')); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// TornError says that some lines of a file of records are no records: a program was killed while it wrote them. The others were read.
type TornError struct {
	Path  string
	Lines []int // from 1
}

func (e *TornError) Error() string {
	return fmt.Sprintf("%s: lines %v are not whole; the others were read", e.Path, e.Lines)
}

// ReadRecords reads a file of records. A file that does not exist holds none. With a *TornError the whole records are returned.
func ReadRecords(path string) ([]Record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []Record
	var torn []int
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var r Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			torn = append(torn, n)
			continue
		}
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if torn != nil {
		return records, &TornError{path, torn}
	}
	return records, nil
}
