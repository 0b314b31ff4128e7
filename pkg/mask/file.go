package mask

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/params"
)

// The file: magic, the header's length (uint32, little-endian), the header as JSON, for each mask its bits (row-major, least significant first,
// padded to a byte), SHA-256 of all that.
const (
	magic = "ESPMASK1"
	start = len(magic) + 4
)

type entry struct {
	Path  string `json:"path"`
	Shape []int  `json:"shape"`
	Kept  int    `json:"kept"`
}

// ErrFormat says that something is not a whole file of masks; the error is a *FormatError.
var ErrFormat = errors.New("not a whole mask file")

// FormatError says what is wrong with a file of masks. Nothing was changed.
type FormatError struct {
	File    string // its name, if what was read has one, as an *os.File does
	Offset  int64  // first wrong byte; 0 also stands for the whole
	Problem string
}

func (e *FormatError) Error() string {
	where := e.File
	if e.Offset > 0 {
		where = strings.TrimSpace(fmt.Sprintf("%s at byte %d", where, e.Offset))
	}
	if where != "" {
		where += ": "
	}
	return fmt.Sprintf("%s%v: %s; save the masks again", where, ErrFormat, e.Problem)
}

// Unwrap makes errors.Is see ErrFormat.
func (e *FormatError) Unwrap() error { return ErrFormat }

// MismatchError says that masks belong to another network. Nothing was changed.
type MismatchError struct{ Problems []string }

func (e *MismatchError) Error() string {
	return "these masks are for another network; nothing was changed:\n  " + strings.Join(e.Problems, "\n  ")
}

// Save writes the masks of a set, one bit for each weight.
func Save(w io.Writer, store *model.Store, set params.Set) error {
	var header []entry
	var content []byte
	for _, p := range set {
		alive, err := Bools(store, p)
		if err != nil {
			return err
		}
		e := entry{Path: p.Path, Shape: p.Shape.Dimensions}
		own := make([]byte, (len(alive)+7)/8)
		for i, a := range alive {
			if a {
				own[i/8] |= 1 << (i % 8)
				e.Kept++
			}
		}
		header = append(header, e)
		content = append(content, own...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	data := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(text)))
	data = append(append(data, text...), content...)
	sum := sha256.Sum256(data)
	_, err = w.Write(append(data, sum[:]...))
	return err
}

// Load reads masks that Save wrote, sets them, and zeroes nothing: prune.Pruner.Enforce does that. All of the set's masks must be
// there and fit, else the error is a *MismatchError, and nothing is changed; a *FormatError for a file that is damaged, or says two things.
func Load(r io.Reader, store *model.Store, set params.Set) error {
	// The set says how large the file can be, so nothing larger is ever read. Another network may have longer names, and some more of them.
	limit := int64(start + sha256.Size + 256<<10)
	for _, p := range set {
		limit += int64(p.Size()+7)/8 + int64(8*len(p.Path)) + 256
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > limit {
		return &MismatchError{Problems: []string{fmt.Sprintf("the file is larger than the %d bytes that this network's masks can take", limit)}}
	}
	masks, damage := unpack(data)
	if damage != nil {
		if named, ok := r.(interface{ Name() string }); ok {
			damage.File = named.Name()
		}
		return damage
	}
	if problems := masks.compare(set); len(problems) > 0 {
		return &MismatchError{Problems: problems}
	}
	// The masks of the network, and no others, so that all that is made room for now is what it has.
	alive := make([][]bool, len(set))
	for i, p := range set {
		alive[i] = masks[p.Path].bools()
	}
	for i, p := range set {
		if err := Set(store, p, alive[i]); err != nil {
			return err
		}
	}
	return nil
}

// packed is a mask as it lies in the file.
type packed struct {
	shape string
	size  int
	bits  []byte
}

func (p packed) bools() []bool {
	alive := make([]bool, p.size)
	for i := range alive {
		alive[i] = p.bits[i/8]>>(i%8)&1 == 1
	}
	return alive
}

// file is the masks of a file by their paths.
type file map[string]packed

// unpack checks all that can be checked without a network.
func unpack(data []byte) (file, *FormatError) {
	bad := func(offset int, format string, args ...any) (file, *FormatError) {
		return nil, &FormatError{Offset: int64(offset), Problem: fmt.Sprintf(format, args...)}
	}
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return bad(0, "%d bytes, no %q at the start", len(data), magic)
	}
	if least := start + sha256.Size; len(data) < least {
		return bad(len(magic), "%d bytes, where the shortest has %d: it was cut off", len(data), least)
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return bad(0, "it does not match its digest")
	}
	length := binary.LittleEndian.Uint32(data[len(magic):])
	if int64(length) > int64(len(body)-start) {
		return bad(len(magic), "a header of %d bytes in %d", length, len(body))
	}
	var header []entry
	if err := json.Unmarshal(body[start:start+int(length)], &header); err != nil {
		return bad(start, "%v", err)
	}
	at := start + int(length)
	masks := file{}
	for _, e := range header {
		rest := body[at:]
		size := 1
		for _, d := range e.Shape {
			if d < 1 || size > 8*len(rest)/d {
				return bad(at, "%.200s has shape %.200s in the %d bytes left", e.Path, fmt.Sprint(e.Shape), len(rest))
			}
			size *= d
		}
		n := (size + 7) / 8
		if n > len(rest) {
			return bad(at, "it ends within %.200s", e.Path)
		}
		if _, found := masks[e.Path]; found {
			return bad(at, "it has two masks of %.200s", e.Path)
		}
		if beyond := size % 8; beyond > 0 && rest[n-1]>>beyond != 0 {
			return bad(at+n-1, "%.200s has bits behind its end", e.Path)
		}
		kept := 0
		for _, b := range rest[:n] {
			kept += bits.OnesCount8(b)
		}
		if kept != e.Kept {
			return bad(at, "%.200s has %d living weights, its header says %d", e.Path, kept, e.Kept)
		}
		masks[e.Path] = packed{fmt.Sprint(e.Shape), size, rest[:n]}
		at += n
	}
	if at != len(body) {
		return bad(at, "%d bytes behind the last mask", len(body)-at)
	}
	return masks, nil
}

// compare says in what the masks are not those of a set, in a fixed order.
func (f file) compare(set params.Set) (problems []string) {
	ours := map[string]bool{}
	for _, p := range set {
		ours[p.Path] = true
		if got, want := f[p.Path].shape, fmt.Sprint(p.Shape.Dimensions); got == "" {
			problems = append(problems, fmt.Sprintf("%s: expected %s, not in the file", p.Path, want))
		} else if got != want {
			problems = append(problems, fmt.Sprintf("%s: expected %s, found %s", p.Path, want, got))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(f)) {
		if !ours[path] {
			problems = append(problems, fmt.Sprintf("%s: found %s, the network has no such parameter", path, f[path].shape))
		}
	}
	return problems
}
