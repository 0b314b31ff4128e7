package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Record is one result, with what it takes to group it with others. In JSON it is one line; values that are not finite, such as the loss of a run that
// diverged, are the strings "NaN", "+Inf" and "-Inf".
type Record struct {
	Recipe string // canonical name of what was done
	Seed   int64
	Step   int
	Labels map[string]string
	Values map[string]float64
}

type jsonRecord struct {
	Recipe string            `json:"recipe"`
	Seed   int64             `json:"seed"`
	Step   int               `json:"step,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Values map[string]number `json:"values"`
}

// MarshalJSON implements json.Marshaler.
func (r Record) MarshalJSON() ([]byte, error) {
	out := jsonRecord{r.Recipe, r.Seed, r.Step, r.Labels, map[string]number{}}
	for name, x := range r.Values {
		out.Values[name] = number(x)
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Record) UnmarshalJSON(data []byte) error {
	var in jsonRecord
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	if in.Values == nil {
		return errors.New(`no "values": not a record`)
	}
	*r = Record{Recipe: in.Recipe, Seed: in.Seed, Step: in.Step, Labels: in.Labels}
	for name, x := range in.Values {
		if r.Values == nil {
			r.Values = map[string]float64{}
		}
		r.Values[name] = float64(x)
	}
	return nil
}

// WriteRecords writes records to a file, one JSON object a line, in place of what it held, whole or not at all. Its directory is made.
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
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(path)
}

// AppendRecord adds a record to a file of records, and returns when it is on the disk. The file and its directory are made.
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
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end > 0 { // after a torn line, which a killed program left, a new one must begin
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			line = append([]byte("\n"), line...)
		}
	}
	if err == nil {
		if _, err = f.Write(append(line, '\n')); err == nil {
			err = f.Sync()
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if end == 0 {
		return syncDir(path)
	}
	return nil
}

// syncDir makes a new name in a directory last.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// TornError says that some lines of a file of records are no records, as when a program was killed while it wrote one. The others were read.
type TornError struct {
	Path  string
	Lines []int // from 1
}

func (e *TornError) Error() string {
	return fmt.Sprintf("%s: lines %v are not whole records; the others were read. Make those results again, or delete the lines", e.Path, e.Lines)
}

// ReadRecords reads a file of records. A file that does not exist holds none. With a *TornError the whole records are returned, so that a program may go on.
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
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			torn = append(torn, n)
			continue
		}
		records = append(records, r)
	}
	if torn != nil {
		return records, &TornError{path, torn}
	}
	return records, nil
}
