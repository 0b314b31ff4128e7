package experiment

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
)

// digest identifies a run: what it computes, from which values on, on which data, and how. Two runs that differ in any of it are saved apart.
func (tr *Trainer) digest(t Training, total int) (string, error) { return tr.digestWith(t, total, nil) }

// digestWith is digest with other values in the place of some variables' own.
func (tr *Trainer) digestWith(t Training, total int, instead map[*model.Variable]*tensors.Tensor) (string, error) {
	identity := map[string]any{
		"step": tr.step.identity, "steps": total, "seed": t.Seed, "name": t.Name, "data": tr.task.Train.Name(),
		"format": 2, // of checkpoints, from which on they are read
	}
	examples, err := DataDigest(tr.task.Train)
	if err != nil {
		return "", err
	}
	if examples != "" {
		identity["examples"] = examples
	}
	if tr.step.resident != nil {
		identity["order"] = tr.step.resident.Order(0)[:tr.step.batch]
	}
	if t.after != 0 {
		identity["after"] = t.after
	}
	if t.Validate > 0 { // it changes nothing that is trained, but what the run has to tell
		validation, err := DataDigest(tr.task.Validation)
		if err != nil {
			return "", err
		}
		identity["validate"] = []any{t.Validate, t.KeepBest, tr.task.Validation.Name(), validation}
	}
	if len(t.Keep) > 0 {
		identity["keep"] = slices.Compact(slices.Sorted(slices.Values(t.Keep)))
	}
	if t.Rate != nil {
		var factors []string
		for s := 0; s < total; s += block {
			factors = append(factors, fmt.Sprint(t.Rate(float64(s)/float64(total))))
		}
		identity["rate"] = factors
	}
	if t.Schedule != nil {
		var events []string
		for s := 1; s <= total; s++ {
			if t.When(s) {
				events = append(events, fmt.Sprint(s, t.Schedule(s)))
			}
		}
		identity["schedule"] = events
		identity["recipe"] = t.Pruner.Recipe().String()
		if identity["code"], err = t.Pruner.Code(); err != nil {
			return "", err
		}
		if t.Batches != 0 {
			identity["batches"] = t.Batches
		}
	}
	if t.Topology != nil {
		var events []string
		for s := 1; s <= total; s++ {
			if t.Topology.Due(s) {
				events = append(events, fmt.Sprint(s, t.Topology.Fraction(s)))
			}
		}
		identity["topology"], identity["events"] = t.Topology.String(), events
		if identity["code"], err = t.Topology.Code(total); err != nil {
			return "", err
		}
		if t.Batches != 0 {
			identity["batches"] = t.Batches
		}
	}
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(identity); err != nil {
		return "", err
	}
	for _, v := range sorted(tr.store) {
		if !v.HasValue() {
			continue
		}
		value, err := v.Value()
		if other := instead[v]; other != nil {
			value = other
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %t\n", v.Path(), v.Trainable)
		if err := hashTensor(h, value); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// DataDigest identifies the examples of a data set, by its own Digest or by all of its arrays; "" for one that has neither. What is kept of a measurement is kept with it.
func DataDigest(ds train.Dataset) (string, error) {
	if d, ok := ds.(interface{ Digest() string }); ok {
		return d.Digest(), nil
	}
	r, ok := ds.(Resident)
	if !ok {
		return "", nil
	}
	h := sha256.New()
	inputs, labels := r.Arrays()
	for _, array := range []*tensors.Tensor{inputs, labels} {
		if err := hashTensor(h, array); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashTensor(h io.Writer, t *tensors.Tensor) error {
	fmt.Fprintln(h, t.Shape())
	return t.ConstBytes(func(data []byte) { h.Write(data) })
}
