package memory

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// A data set survives from one cell of a notebook to the next (kernelext.Keeper): its examples are written once, however many views of them there are, and
// a view is its few numbers.

const (
	viewFile   = "view.json"
	headFile   = "contents.json"
	inputsFile = "inputs"
	labelsFile = "labels"
)

// kept is what a view is besides its examples.
type kept struct {
	Training bool
	Batch    int
	Seed     int64
	Epoch    int64
}

func (d *Dataset) kept() kept { return kept{d.training, d.batch, d.seed, d.epoch.Load()} }

// KeepRefs implements kernelext.Referrer: the examples, which views share.
func (d *Dataset) KeepRefs() []any { return []any{&d.data} }

// KeepDigest implements kernelext.Keeper.
func (d *Dataset) KeepDigest() (string, error) {
	return fmt.Sprintf("%s %+v", d.Digest(), d.kept()), nil
}

// KeepSave implements kernelext.Keeper.
func (d *Dataset) KeepSave(dir string) error {
	text, err := json.Marshal(d.kept())
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, viewFile), text, 0o600)
}

// KeepLoad implements kernelext.Keeper.
func (d *Dataset) KeepLoad(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, viewFile))
	if err != nil {
		return err
	}
	var k kept
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	if k.Batch < 1 || d.data == nil {
		return &fault.Error{Kind: fault.ErrFormat, File: filepath.Join(dir, viewFile), Expected: "a batch of at least 1 example, and the examples", Came: string(text)}
	}
	d.training, d.batch, d.seed = k.Training, k.Batch, k.Seed
	d.epoch.Store(k.Epoch)
	return nil
}

// head is what the examples are besides their arrays.
type head struct {
	Name, Part              string
	Height, Width, Channels int
	Examples                int
	ClassNames              []string
	Digest                  string
}

// KeepDigest implements kernelext.Keeper.
func (s *shared) KeepDigest() (string, error) { return s.Name + " " + s.Part + " " + s.digest(), nil }

// KeepSave implements kernelext.Keeper.
func (s *shared) KeepSave(dir string) error {
	text, err := json.Marshal(head{s.Name, s.Part, s.Height, s.Width, s.Channels, len(s.Labels), s.ClassNames, s.digest()})
	if err != nil {
		return err
	}
	labels := make([]byte, 0, 4*len(s.Labels))
	for _, label := range s.Labels {
		labels = binary.LittleEndian.AppendUint32(labels, uint32(label))
	}
	for _, file := range []struct {
		name    string
		content []byte
	}{{headFile, text}, {labelsFile, labels}, {inputsFile, s.Inputs}} {
		if err := os.WriteFile(filepath.Join(dir, file.name), file.content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// KeepLoad implements kernelext.Keeper. The digest is taken from the file: to compute it again would cost more than the rest, in each cell.
func (s *shared) KeepLoad(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, headFile))
	if err != nil {
		return err
	}
	var h head
	if err := json.Unmarshal(text, &h); err != nil {
		return err
	}
	labels, err := os.ReadFile(filepath.Join(dir, labelsFile))
	if err != nil {
		return err
	}
	c := Contents{Name: h.Name, Part: h.Part, Height: h.Height, Width: h.Width, Channels: h.Channels, ClassNames: h.ClassNames}
	if c.Inputs, err = os.ReadFile(filepath.Join(dir, inputsFile)); err != nil {
		return err
	}
	if len(labels) != 4*h.Examples {
		return &fault.Error{Kind: fault.ErrFormat, File: filepath.Join(dir, labelsFile), Expected: fmt.Sprintf("%d labels", h.Examples), Came: fmt.Sprintf("%d bytes", len(labels))}
	}
	for ; len(labels) > 0; labels = labels[4:] {
		c.Labels = append(c.Labels, int32(binary.LittleEndian.Uint32(labels)))
	}
	if err := c.check(); err != nil {
		return err
	}
	made := share(c)
	s.Contents, s.tensors = made.Contents, made.tensors
	s.digest = sync.OnceValue(func() string { return h.Digest })
	return nil
}
