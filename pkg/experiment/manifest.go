package experiment

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// Manifest is one run of a comparison, written down so that it can be repeated (Replay, `espalier replay`) and compared.
type Manifest struct {
	Version   int               `json:"version"` // of this format: 3; 1 has no digest, 2 no code
	Network   string            `json:"network"`
	Data      DataSpec          `json:"data"`
	Examples  string            `json:"examples"`           // what the run starts from: a digest of first values, data, their order, the training step and how it is trained
	Measured  string            `json:"measured,omitempty"` // digest of the data that accuracy was measured on
	Contender string            `json:"contender"`
	Recipe    string            `json:"recipe"`
	Parts     Parts             `json:"parts"`
	Code      string            `json:"code,omitempty"`   // what the recipe's functions compute: prune.Pruner.Code
	Spared    []string          `json:"spared,omitempty"` // the network's outputs, which a structured unit does not remove
	Mode      Mode              `json:"mode"`
	Rounds    int               `json:"rounds"`
	Schedule  string            `json:"schedule,omitempty"`
	Batches   int               `json:"batches,omitempty"`
	Sparsity  float64           `json:"sparsity"`
	Seed      int64             `json:"seed"`
	Dense     Spec              `json:"dense"`
	Tune      Spec              `json:"tune"`
	Test      bool              `json:"test"` // measured on the test data
	Versions  map[string]string `json:"versions"`

	Masks   string             `json:"masks"`          // SHA-256 of the masks
	Weights string             `json:"weights"`        // SHA-256 of all variables
	Each    map[string]string  `json:"each,omitempty"` // the same, of each variable and each mask apart, the first 16 digits: where two runs differ
	Results map[string]float64 `json:"results"`
}

// manifestVersion is that of the format which is written.
const manifestVersion = 3

// manifestFile is what a manifest's file holds.
type manifestFile struct {
	Manifest
	SHA256 string `json:"sha256,omitempty"` // of the manifest's JSON without spaces
}

// Parts are the names of what a recipe is made of.
type Parts struct {
	Criterion string `json:"criterion"`
	Normalize string `json:"normalize,omitempty"`
	Unit      string `json:"unit"`
	Budget    string `json:"budget"`
	Revive    bool   `json:"revive,omitempty"`
	KeepMin   bool   `json:"keepMin,omitempty"`
	MinUnits  int    `json:"minUnits,omitempty"`
	RoundTo   int    `json:"roundTo,omitempty"`
}

// ManifestError says that a file is no manifest.
type ManifestError struct{ Path, Problem string }

func (e *ManifestError) Error() string {
	return fmt.Sprintf("%s is no manifest of a run: %s", e.Path, e.Problem)
}

// manifest returns the manifest of a run before it is made.
func (b *bench) manifest(r run) Manifest {
	filled := r.Recipe.Complete()
	var spared []string
	for _, p := range b.set {
		if p.Output && filled.Unit.Structured {
			spared = append(spared, p.Path)
		}
	}
	return Manifest{
		Version: manifestVersion, Network: b.Network, Data: b.Data, Examples: b.startKey, Measured: b.measured, Contender: r.Name, Recipe: r.Recipe.String(),
		Parts: Parts{filled.Criterion.Name, filled.Normalize.Name, filled.Unit.Name, filled.Budget.Name, filled.Revive, filled.KeepMin, filled.MinUnits, filled.RoundTo}, Code: b.codes[r.Name], Spared: spared,
		Mode: r.Mode, Rounds: r.Rounds, Schedule: scheduleOf(r.Contender), Batches: r.Batches, Sparsity: r.sparsity, Seed: r.seed, Dense: b.Dense, Tune: b.Tune, Test: b.Test, Versions: versions(b.Task.Backend.Name()),
	}
}

// scheduleOf is the name of a contender's schedule, where it has a part.
func scheduleOf(c Contender) string {
	if c.Mode != Gradual {
		return ""
	}
	return c.Schedule.Name
}

// ChangedError says that a run can't be repeated, because what it starts from is not what it was: first values, data, their order, the training step, or how it is trained.
type ChangedError struct{ Want, Got string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the run starts from something else than it did (%.12s…, was %.12s…): other data, another network, other parameters selected, or other versions of the libraries", e.Got, e.Want)
}

// Replay makes the run of a manifest again and returns its manifest; nothing is loaded and nothing kept. c holds the one contender, with all that the manifest names.
//
// Errors: *ConfigError, *ChangedError; those of Train and Prune.
func Replay(ctx context.Context, c Comparison, m Manifest) (Manifest, error) {
	c.Fast, c.Dir, c.Seeds = true, "", []int64{m.Seed}
	if m.Sparsity > 0 {
		c.Sparsities = []float64{m.Sparsity}
	} else {
		c.Sparsities = []float64{0.5} // the dense networks have none
	}
	if len(c.Contenders) != 1 {
		return m, &ConfigError{"Comparison.Contenders", fmt.Sprintf("there are %d", len(c.Contenders)), "give the one that the manifest is of"}
	}
	if one := c.Contenders[0].complete(); !slices.Contains([]Mode{OneShot, Iterative, Gradual, AtInit, still, trainedOn, scratchE, scratchB}, one.Mode) || one.Rounds < 1 {
		return m, &ConfigError{"Comparison.Contenders", fmt.Sprintf("%s has mode %q and %d rounds", one.Name, one.Mode, one.Rounds), "replay a manifest that Compare wrote"}
	}
	b, err := c.open()
	if err != nil {
		return m, err
	}
	if err := b.begin(ctx, m.Seed); err != nil {
		return m, err
	}
	if b.startKey != m.Examples {
		return m, &ChangedError{m.Examples, b.startKey}
	}
	if b.measured != m.Measured {
		return m, &ChangedError{m.Measured, b.measured}
	}
	r := run{c.Contenders[0].complete(), m.Sparsity, m.Seed}
	if err := b.read(r.Contender); err != nil {
		return m, err
	}
	again := b.manifest(r)
	if !slices.Equal(again.Spared, m.Spared) {
		return m, &ConfigError{"Comparison.Select", fmt.Sprintf("it spares %q, and the run spared %q", again.Spared, m.Spared), "select and mark the parameters as the run did"}
	}
	record, err := b.result(ctx, r)
	if err != nil {
		return m, err
	}
	again.Results = record.Values
	return again, b.digests(&again)
}

// key identifies a run by all that it is made of, but neither by its results nor by the versions it was made with.
func (m Manifest) key() (string, error) {
	m.Version = 1 // the format names no other run
	m.Versions, m.Masks, m.Weights, m.Each, m.Results = nil, "", "", nil, nil
	return hashJSON(m)
}

func versions(backend string) map[string]string {
	v := map[string]string{"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "backend": backend}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if strings.HasPrefix(d.Path, "github.com/gomlx/") {
				v[d.Path] = d.Version
			}
		}
	}
	return v
}

// write writes a manifest, whole or not at all.
func (m Manifest) write(path string) error {
	digest, err := hashJSON(m)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(manifestFile{m, digest}, "", "  ")
	if err != nil {
		return err
	}
	return durable.FS{}.Replace(path, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// ReadManifest reads a manifest. The error is a *ManifestError, or of the file system.
func ReadManifest(path string) (Manifest, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, err
	}
	var version struct{ Version int }
	if err := json.Unmarshal(text, &version); err != nil {
		return Manifest{}, &ManifestError{path, err.Error()}
	}
	if version.Version < 1 || version.Version > manifestVersion {
		return Manifest{}, &ManifestError{path, fmt.Sprintf("its version is %d, expected 1 to %d", version.Version, manifestVersion)}
	}
	var file manifestFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return Manifest{}, &ManifestError{path, err.Error()}
	}
	m := file.Manifest
	if m.Version > 1 {
		if digest, err := hashJSON(m); err != nil || digest != file.SHA256 {
			return Manifest{}, &ManifestError{path, "it does not have its digest, so it was damaged or changed"}
		}
	}
	if m.Results == nil || m.Masks == "" {
		return Manifest{}, &ManifestError{path, "it has no results"}
	}
	return m, nil
}
