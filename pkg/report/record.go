package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
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
	CRC32  string            `json:"crc32,omitempty"` // of the JSON without it, by the polynomial of IEEE 802.3
}

// sealed returns the record with its checksum.
func (r jsonRecord) sealed() (jsonRecord, error) {
	r.CRC32 = ""
	text, err := json.Marshal(r)
	r.CRC32 = fmt.Sprintf("%08x", crc32.ChecksumIEEE(text))
	return r, err
}

// MarshalJSON implements json.Marshaler.
func (r Record) MarshalJSON() ([]byte, error) {
	out := jsonRecord{Recipe: valid(r.Recipe), Seed: r.Seed, Step: r.Step, Labels: map[string]string{}, Values: map[string]number{}}
	for name, text := range r.Labels {
		out.Labels[valid(name)] = valid(text)
	}
	for name, x := range r.Values {
		out.Values[valid(name)] = number(x)
	}
	out, err := out.sealed()
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// valid is text as it comes back from JSON.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// UnmarshalJSON implements json.Unmarshaler. A field of another name is refused: it is one that was damaged, or of a newer version, and its record would
// be read as if it had none. A record without a checksum is one that somebody wrote by hand.
func (r *Record) UnmarshalJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("not in UTF-8")
	}
	var in jsonRecord
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return err
	}
	if in.Values == nil {
		return errors.New(`no "values": not a record`)
	}
	if again, err := in.sealed(); err != nil || in.CRC32 != "" && again.CRC32 != in.CRC32 {
		return errors.New("it does not have its checksum")
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

// files is what records are written through; tests make its steps fail.
var files durable.FS

// WriteRecords writes records to a file, one JSON object a line, in place of what it held, whole or not at all. Its directory is made.
func WriteRecords(path string, records []Record) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for i, r := range records {
		if err := e.Encode(r); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	return files.Replace(path, func(w io.Writer) error {
		_, err := w.Write(b.Bytes())
		return err
	})
}

// AppendRecord adds a record to a file of records, and returns when it is on the disk. The file and its directory are made. On an error the record may be
// there, in part, which ReadRecords reports, or whole; those before it are as they were.
func AppendRecord(path string, r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return files.Append(path, append(line, '\n'))
}

// TornError says that some lines of a file of records are no records, as when a program was killed while it wrote one. The others were read.
type TornError struct {
	Path  string
	Lines []int // from 1
}

func (e *TornError) Error() string {
	const most = 10 // a file of something else has no whole line, and may have millions
	lines, more := e.Lines, ""
	if len(lines) > most {
		lines, more = lines[:most], fmt.Sprintf(" and %d more", len(lines)-most)
	}
	return fmt.Sprintf("%s: lines %v%s are not whole records; the others were read. Make those results again, or delete the lines", e.Path, lines, more)
}

// ReadRecords reads a file of records. A file that does not exist holds none. With a *TornError the whole records are returned, so that a program may go on.
//
// A line that is cut or damaged is no whole record: each has a checksum, "crc32". One that somebody wrote by hand may do without; whoever mends one takes it out.
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
		if !json.Valid(line) || json.Unmarshal(line, &r) != nil { // Valid says no without allocating: a file of something else costs little
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
