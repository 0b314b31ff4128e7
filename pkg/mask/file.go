package mask

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/params"
)

// The file: magic, the header's length (uint32, little-endian), the header as JSON, for each mask its bits (row-major, least significant first,
// padded to a byte), SHA-256 of all that.
const (
	magic     = "ESPMASK1"
	maxHeader = 16 << 20
)

type entry struct {
	Path  string `json:"path"`
	Shape []int  `json:"shape"`
	Kept  int    `json:"kept"`
}

// ErrFormat says that something is not a whole file of masks.
var ErrFormat = errors.New("not a whole mask file")

// MismatchError says that masks belong to another network. Nothing was changed.
type MismatchError struct{ Problems []string }

func (e *MismatchError) Error() string {
	return "these masks are for another network; nothing was changed:\n  " + strings.Join(e.Problems, "\n  ")
}

// Save writes the masks of a set, one bit for each weight.
func Save(w io.Writer, store *model.Store, set params.Set) error {
	var header []entry
	var bits []byte
	for _, p := range set {
		alive, err := Bools(store, p)
		if err != nil {
			return err
		}
		e := entry{Path: p.Path, Shape: p.Shape.Dimensions}
		packed := make([]byte, (len(alive)+7)/8)
		for i, a := range alive {
			if a {
				packed[i/8] |= 1 << (i % 8)
				e.Kept++
			}
		}
		header = append(header, e)
		bits = append(bits, packed...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	data := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(text)))
	data = append(append(data, text...), bits...)
	sum := sha256.Sum256(data)
	_, err = w.Write(append(data, sum[:]...))
	return err
}

// Load reads masks that Save wrote, sets them, and zeroes nothing: prune.Pruner.Enforce does that. All of the set's masks must be
// there and fit, else the error is a *MismatchError, and nothing is changed; ErrFormat for a damaged file.
func Load(r io.Reader, store *model.Store, set params.Set) error {
	// The set says how large the file can be, so nothing larger is ever read.
	limit := int64(maxHeader + len(magic) + 4 + sha256.Size)
	for _, p := range set {
		limit += int64(p.Size()+7) / 8
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > limit {
		return &MismatchError{Problems: []string{fmt.Sprintf("the file is larger than the %d bytes that this network's masks can take", limit)}}
	}
	start := len(magic) + 4
	if len(data) < start+sha256.Size || string(data[:len(magic)]) != magic {
		return fmt.Errorf("%w: %d bytes, no %q at the start", ErrFormat, len(data), magic)
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return fmt.Errorf("%w: it does not match its digest", ErrFormat)
	}
	length := int(binary.LittleEndian.Uint32(data[len(magic):]))
	if length > len(body)-start {
		return fmt.Errorf("%w: a header of %d bytes in %d", ErrFormat, length, len(body))
	}
	var header []entry
	if err := json.Unmarshal(body[start:start+length], &header); err != nil {
		return fmt.Errorf("%w: %v", ErrFormat, err)
	}
	found := map[string][]bool{}
	shapes := map[string]string{}
	bits := body[start+length:]
	for _, e := range header {
		size := 1
		for _, d := range e.Shape {
			if d < 0 || d > 0 && size > 8*len(bits)/d {
				return fmt.Errorf("%w: %s has shape %v, larger than the file", ErrFormat, e.Path, e.Shape)
			}
			size *= d
		}
		if (size+7)/8 > len(bits) {
			return fmt.Errorf("%w: it ends within %s", ErrFormat, e.Path)
		}
		alive, kept := make([]bool, size), 0
		for i := range alive {
			if alive[i] = bits[i/8]>>(i%8)&1 == 1; alive[i] {
				kept++
			}
		}
		if kept != e.Kept {
			return fmt.Errorf("%w: %s has %d living weights, its header says %d", ErrFormat, e.Path, kept, e.Kept)
		}
		bits = bits[(size+7)/8:]
		found[e.Path], shapes[e.Path] = alive, fmt.Sprint(e.Shape)
	}
	var problems []string
	for _, p := range set {
		if got, want := shapes[p.Path], fmt.Sprint(p.Shape.Dimensions); got == "" {
			problems = append(problems, fmt.Sprintf("%s: expected %s, not in the file", p.Path, want))
		} else if got != want {
			problems = append(problems, fmt.Sprintf("%s: expected %s, found %s", p.Path, want, got))
		}
		delete(shapes, p.Path)
	}
	for path, shape := range shapes {
		problems = append(problems, fmt.Sprintf("%s: found %s, the network has no such parameter", path, shape))
	}
	if len(problems) > 0 {
		return &MismatchError{Problems: problems}
	}
	for _, p := range set {
		if err := Set(store, p, found[p.Path]); err != nil {
			return err
		}
	}
	return nil
}
