// Package synth draws small labelled data sets from a seed, for examples and tests that shall need no file.
//
// All drawing is done in integers (and square roots, which IEEE 754 rounds exactly), so that a seed gives the same bytes on every
// machine.
package synth

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

type (
	// Data is a data set in three parts.
	Data = memory.Splits
	// Dataset is one part. It implements GoMLX's train.Dataset (Name, Iter). Take, WithBatch, WithSeed and Shuffled return views of it
	// that share its arrays; Len, Label, Image, ClassNames, Shape and Digest tell what is in it; Arrays, Order, Batch and Decode are
	// for training loops that keep the data on the device.
	Dataset = memory.Dataset
	// Error is the error of this package; its kind is ErrConfig.
	Error = fault.Error
)

// ErrConfig is the kind of an Error, for errors.Is.
var ErrConfig = fault.ErrConfig

// maxExamples bounds each part.
const maxExamples = 1 << 20

// Config says how much to draw. An example is a function of the seed, its part and its index alone: more of them leave the first ones
// as they are.
type Config struct {
	Train, Validation, Test int   // examples of each part. Default: 4000, 500 and 500.
	Batch                   int   // examples in a training batch. Default: 128.
	Seed                    int64 // of the drawing and of the shuffling; WithSeed of the parts changes the shuffling alone.
}

// BlobsConfig says what Blobs draws.
type BlobsConfig struct {
	Config
	Classes  int // Default: 4; at most 256.
	Features int // pixels of an example, in one row. Default: 16; at most 4096.
	Spread   int // standard deviation of each feature around the centre of its class, of 255. Default: 16; at most 64.
}

// Digits draws seven-segment digits of 28x28 gray pixels, [n, 28, 28, 1], with labels 0 to 9 that take turns: moved, stretched, slanted,
// of different stroke and ink, their corners displaced, under noise. They have the shape of MNIST, so that its networks run
// unchanged, and are easier: a small multilayer perceptron gets more than 95% right.
//
// The error is an *Error of kind ErrConfig.
func Digits(cfg Config) (*Data, error) {
	names := make([]string, len(segments))
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	like := memory.Contents{Name: "synthetic digits", Height: side, Width: side, Channels: 1, ClassNames: names}
	return cfg.draw(like, digit)
}

// Blobs draws Gaussian clusters around one centre per class, [n, 1, Features, 1], with labels that take turns. Values are cut to bytes.
//
// The error is an *Error of kind ErrConfig.
func Blobs(cfg BlobsConfig) (*Data, error) {
	for _, f := range []field{
		{"Classes", &cfg.Classes, 4, 2, 256},
		{"Features", &cfg.Features, 16, 1, 4096},
		{"Spread", &cfg.Spread, 16, 1, 64},
	} {
		if err := f.settle(); err != nil {
			return nil, err
		}
	}
	names := make([]string, cfg.Classes)
	for i := range names {
		names[i] = fmt.Sprintf("blob %d", i)
	}
	centres := centres(cfg)
	like := memory.Contents{Name: "blobs", Height: 1, Width: cfg.Features, Channels: 1, ClassNames: names}
	return cfg.draw(like, func(d draws, label int, pixels []uint8) {
		for i, c := range centres[label] {
			pixels[i] = clamp(c + (cfg.Spread*d.normal()+unit/2)>>8) // >>8 divides by unit, rounding to the nearest
		}
	})
}

// field is an integer of a configuration, with its default and its bounds.
type field struct {
	name                      string
	value                     *int
	standard, lowest, highest int
}

// settle replaces 0 by the default and checks the bounds.
func (f field) settle() error {
	if *f.value == 0 {
		*f.value = f.standard
	}
	if *f.value < f.lowest || *f.value > f.highest {
		return &Error{Kind: ErrConfig, File: "synth", Expected: fmt.Sprintf("%s from %d to %d, or 0 for %d", f.name, f.lowest, f.highest,
			f.standard), Came: strconv.Itoa(*f.value)}
	}
	return nil
}

// draw makes the three parts; like says all of them but the examples, and one draws an example.
func (cfg Config) draw(like memory.Contents, one func(d draws, label int, pixels []uint8)) (*Data, error) {
	var parts memory.Parts
	for stream, p := range []struct {
		name  string
		count field
		to    *memory.Contents
	}{
		{"train", field{"Train", &cfg.Train, 4000, 1, maxExamples}, &parts.Train},
		{"validation", field{"Validation", &cfg.Validation, 500, 1, maxExamples}, &parts.Validation},
		{"test", field{"Test", &cfg.Test, 500, 1, maxExamples}, &parts.Test},
	} {
		if err := p.count.settle(); err != nil {
			return nil, err
		}
		c := like
		c.Part = p.name
		n, size := *p.count.value, c.Height*c.Width*c.Channels
		c.Inputs, c.Labels = make([]uint8, n*size), make([]int32, n)
		for i := range n {
			label := i % len(c.ClassNames)
			c.Labels[i] = int32(label)
			one(draws{rand.NewPCG(uint64(cfg.Seed), uint64(stream+1)<<32+uint64(i))}, label, c.Inputs[i*size:][:size])
		}
		*p.to = c
	}
	return parts.Open(cfg.Batch, cfg.Seed)
}

// centres returns the centre of each class, [Classes][Features]. Each one is the candidate of 32 that is the farthest from those before
// it, so that classes rarely overlap.
func centres(cfg BlobsConfig) [][]int {
	d := draws{rand.NewPCG(uint64(cfg.Seed), 0)}
	var chosen [][]int
	for range cfg.Classes {
		var best []int
		farthest := -1
		for range 32 {
			candidate := make([]int, cfg.Features)
			for i := range candidate {
				candidate[i] = d.between(48, 207)
			}
			nearest := math.MaxInt
			for _, other := range chosen {
				sum := 0
				for i, v := range candidate {
					sum += (v - other[i]) * (v - other[i])
				}
				nearest = min(nearest, sum)
			}
			if nearest > farthest {
				best, farthest = candidate, nearest
			}
		}
		chosen = append(chosen, best)
	}
	return chosen
}

// draws are random integers.
type draws struct{ source *rand.PCG }

// between returns an integer from low to high, both included. The remainder's bias is below 2^-40 for the ranges used here.
func (d draws) between(low, high int) int { return low + int(d.source.Uint64()%uint64(high-low+1)) }

// normal returns a sample of mean 0 and standard deviation unit: the sum of twelve uniform ones, which is close to normal up to three
// standard deviations and never beyond six.
func (d draws) normal() int {
	sum := 0
	for range 12 {
		sum += d.between(0, unit)
	}
	return sum - 6*unit
}

// unit is the scale of fixed-point numbers: of a pixel, of a factor, of a standard deviation.
const unit = 256

func clamp(v int) uint8 { return uint8(max(0, min(255, v))) }
