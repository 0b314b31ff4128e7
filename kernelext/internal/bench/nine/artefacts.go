package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/onnx"
	"github.com/espalier-ml/espalier/pkg/report"
	"github.com/espalier-ml/espalier/pkg/store"
	"github.com/espalier-ml/espalier/pkg/store/safetensors"
	"github.com/espalier-ml/espalier/pkg/trace"
)

const accuracyFile = "accuracy.jsonl"

// manifest says what an artefact is. The files lie beside it.
type manifest struct {
	Network   string             `json:"network"`
	What      string             `json:"what"`
	Role      string             `json:"role"` // teacherNet, fastNet, or the rung before it
	Seed      int64              `json:"seed"`
	Widths    []int              `json:"widths"`
	Teacher   []int              `json:"teacherWidths"`
	Recipe    string             `json:"recipe"`
	Accuracy  map[string]float64 `json:"accuracy"` // in GoMLX: "validation", "test"
	MACs      int64              `json:"macs"`
	Params    int64              `json:"params"`
	Data      map[string]string  `json:"data"`  // digests of its parts
	Files     map[string]string  `json:"files"` // SHA-256
	Go, GoMLX string
}

// stem is the name of an artefact's files, without their ending.
func stem(network, role string, seed int64, widths []int) string {
	kind := map[string]string{teacherNet: "dense", fastNet: "small"}[role]
	if kind == "" {
		kind = "rung"
	}
	return fmt.Sprintf("%s-%s-%s-seed%d", network, kind, widthsText(widths), seed)
}

// artefacts tells which networks are exported: the teacher, the fast network, and the rung before it.
func (r *run) artefacts(nets []net) []net {
	rung := fmt.Sprintf("%s, rung %d", fastNet, len(r.rungs)-1)
	return slices.DeleteFunc(slices.Clone(nets), func(n net) bool { return n.name != teacherNet && n.name != fastNet && n.name != rung })
}

// write exports the networks whose time is measured. The dense ones are large and lie in the working directory, the others with the results.
func (r *run) write(s settings, nets []net, records []report.Record) error {
	for _, n := range r.artefacts(nets) {
		dir := filepath.Join(s.out, "networks")
		if n.name == teacherNet {
			dir = filepath.Join(s.work, "dense")
		}
		name := stem(r.name, n.name, r.seed, n.widths)
		m := manifest{
			Network: r.name, What: r.what, Role: n.name, Seed: r.seed, Widths: n.widths, Teacher: r.teacher.widths, Recipe: r.recipe(n),
			MACs: n.cost.MACs, Params: n.cost.Params, Accuracy: map[string]float64{}, Files: map[string]string{}, Go: runtime.Version(), GoMLX: gomlxVersion(),
			Data: map[string]string{"train": r.data.Train.Digest(), "validation": r.data.Validation.Digest(), "test": r.data.Test.Digest()},
		}
		for _, record := range records {
			if record.Recipe == n.name {
				m.Accuracy["validation"], m.Accuracy["test"] = record.Values["validation"], record.Values["test"]
			}
		}
		content, err := onnx.Marshal(r.backend, n.store, trace.Single(r.model(n.widths)), onnx.Config{Name: name}, input(1))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if m.Files[name+".onnx"], err = keep(filepath.Join(dir, name+".onnx"), func(w io.Writer) error { _, err := w.Write(content); return err }); err != nil {
			return err
		}
		if m.Files[name+".safetensors"], err = keep(filepath.Join(dir, name+".safetensors"), func(w io.Writer) error { return writeTensors(w, n.store) }); err != nil {
			return err
		}
		if err := m.write(filepath.Join(dir, name+".json")); err != nil {
			return err
		}
	}
	return nil
}

func (m manifest) write(path string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	_, err = keep(path, func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err })
	return err
}

// recipe says how a network came to be.
func (r *run) recipe(n net) string {
	say := func(s experiment.Spec) string {
		if s.Epochs > 0 {
			return fmt.Sprintf("%d epochs", s.Epochs)
		}
		return fmt.Sprintf("%d steps", s.Steps)
	}
	text := fmt.Sprintf("Adam, cosine, batch %d; %v from scratch, rate %g, %s", r.data.Train.Batch(), r.teacher.widths, r.teacher.spec.LearningRate, say(r.teacher.spec))
	if n.name == teacherNet {
		return text
	}
	for _, rung := range r.rungs {
		text += fmt.Sprintf("; cut to %v by Taylor, distilled from the dense network (T=%d, α=%g), rate %g, %s", rung.widths, temperature, alpha, n.rate, say(rung.spec))
		if slices.Equal(rung.widths, n.widths) {
			break
		}
	}
	return text
}

// keep writes a file and returns its SHA-256.
func keep(path string, write func(io.Writer) error) (string, error) {
	h := sha256.New()
	err := store.WriteFile(path, func(w io.Writer) error { return write(io.MultiWriter(w, h)) })
	return hex.EncodeToString(h.Sum(nil)), err
}

// writeTensors writes the variables of a network: those that hold floats, named by their paths.
func writeTensors(w io.Writer, s *model.Store) error {
	var all []safetensors.Tensor
	for v := range s.IterVariables() {
		if !v.DType().IsFloat() || strings.HasPrefix(v.Path(), "/AdamOptimizer/") || strings.HasPrefix(v.Path(), "/optimizers/") {
			continue
		}
		value, err := v.Value()
		if err != nil {
			return err
		}
		all = append(all, safetensors.Tensor{Name: v.Path(), DType: "F32", Shape: v.Shape().Dimensions, Bytes: func(use func([]byte) error) error {
			var inner error
			err := value.ConstBytes(func(raw []byte) { inner = use(raw) })
			if err != nil {
				return err
			}
			return inner
		}})
	}
	return safetensors.Write(w, map[string]string{"format": "gomlx"}, all)
}

// read returns the manifests below a directory, in order of their names, after a look at the digests of their files.
func readManifests(dir string) (map[string]manifest, error) {
	all := map[string]manifest{}
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for name, want := range m.Files {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != want {
				return nil, fmt.Errorf("%s is not what its manifest %s says: train it again", filepath.Join(dir, name), filepath.Base(path))
			}
		}
		all[strings.TrimSuffix(path, ".json")] = m
	}
	return all, nil
}

func gomlxVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/gomlx/gomlx" {
			return d.Version
		}
	}
	return ""
}

// fill copies the first examples of a data set into a tensor [n, …].
func fill(x *tensors.Tensor, ds train.Dataset) error {
	images, err := floats(ds, x.Shape().Dimensions[0])
	if err != nil {
		return err
	}
	return tensors.MutableFlatData(x, func(flat []float32) { copy(flat, images) })
}

// floats returns the first n examples of a data set, decoded, one after the other.
func floats(ds train.Dataset, n int) ([]float32, error) {
	var all []float32
	count := 0
	for batch, err := range ds.Iter() {
		if err != nil {
			return nil, err
		}
		x, err := tensors.CopyFlatData[float32](batch.Inputs[0])
		if err != nil {
			return nil, err
		}
		each := len(x) / batch.Inputs[0].Shape().Dimensions[0]
		if err := batch.Finalize(); err != nil {
			return nil, err
		}
		x = x[:min(len(x), (n-count)*each)]
		all, count = append(all, x...), count+len(x)/each
		if count == n {
			return all, nil
		}
	}
	return nil, fmt.Errorf("%s has %d examples, expected %d", ds.Name(), count, n)
}
