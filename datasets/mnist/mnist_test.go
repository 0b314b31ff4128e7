package mnist

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"
)

// The counts of each digit are those that everyone who counted them reports.
func TestOpenIsMNIST(t *testing.T) {
	data, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	type part struct {
		Len   int
		Shape []int
		Count [10]int
	}
	count := func(d *Dataset) part {
		p := part{Len: d.Len(), Shape: d.Shape()}
		for i := range d.Len() {
			p.Count[d.Label(i)]++
		}
		return p
	}
	train, held := count(data.Train), count(data.Validation)
	for digit, n := range held.Count {
		train.Count[digit] += n
	}
	want := []part{
		{55000, []int{28, 28, 1}, [10]int{5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949}}, // with those held out
		{10000, []int{28, 28, 1}, [10]int{980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009}},
	}
	if diff := cmp.Diff(want, []part{train, count(data.Test)}); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if held.Len != 5000 || data.Validation.Batch() != 500 || data.Train.Batch() != 128 {
		t.Errorf("%d held out in batches of %d, training in batches of %d", held.Len, data.Validation.Batch(), data.Train.Batch())
	}
	// The mean of the 47 million training pixels is the 0.1307 of every tutorial, in bytes.
	sum := 0
	for _, d := range []*Dataset{data.Train, data.Validation} {
		inputs, _ := d.Arrays()
		tensors.MustConstFlatData(inputs, func(pixels []uint8) {
			for _, p := range pixels {
				sum += int(p)
			}
		})
	}
	if got := float64(sum) / (60000 * 784); math.Abs(got-33.318421) > 1e-6 {
		t.Errorf("the mean training pixel is %f, expected 33.318421", got)
	}
}

func squeeze(words []uint32, content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for _, word := range words {
		w.Write(binary.BigEndian.AppendUint32(nil, word))
	}
	w.Write(content)
	w.Close()
	return b.Bytes()
}

// small returns the four files of a data set in MNIST's format with 24 examples of 2x2 for training and 3 for test.
func small() map[string][]byte {
	pixels, labels := make([]byte, 24*4), make([]byte, 24)
	for i := range labels {
		labels[i] = byte(i % 10)
		pixels[4*i] = byte(i)
	}
	return map[string][]byte{
		trainImages.name: squeeze([]uint32{0x803, 24, 2, 2}, pixels),
		trainLabels.name: squeeze([]uint32{0x801, 24}, labels),
		testImages.name:  squeeze([]uint32{0x803, 3, 2, 2}, pixels[:12]),
		testLabels.name:  squeeze([]uint32{0x801, 3}, labels[:3]),
	}
}

func write(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLookalike(t *testing.T) {
	data, err := Open(Config{Dir: write(t, small()), Lookalike: true})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{data.Train.String(), data.Validation.String(), data.Test.String()}
	want := []string{
		"small train: 22 examples, 2x2x1, 10 classes, batch 22",
		"small validation: 2 examples, 2x2x1, 10 classes, batch 2",
		"small test: 3 examples, 2x2x1, 10 classes, batch 3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if data.Validation.Label(0) != 2 { // the 23rd example
		t.Errorf("the validation part begins with label %d, expected 2", data.Validation.Label(0))
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(map[string][]byte)
		cfg    Config
		kind   error
		want   string
	}{
		{"another data set", func(map[string][]byte) {}, Config{}, ErrDigest, "set Config.Lookalike"},
		{"images and labels swapped", func(f map[string][]byte) {
			f[trainImages.name], f[trainLabels.name] = f[trainLabels.name], f[trainImages.name]
		}, Config{}, ErrFormat, "came 0x801 (labels)"},
		{"2^31 images", func(f map[string][]byte) { f[testImages.name] = squeeze([]uint32{0x803, 1 << 31, 28, 28}, nil) },
			Config{Lookalike: true}, ErrFormat, "2147483648 on axis 0"},
		{"label 255", func(f map[string][]byte) { f[testLabels.name] = squeeze([]uint32{0x801, 3}, []byte{0, 255, 0}) },
			Config{Lookalike: true}, ErrFormat, "label 255 of example 1"},
		{"a truncated file", func(f map[string][]byte) { f[trainImages.name] = f[trainImages.name][:40] }, Config{Lookalike: true}, ErrFormat,
			"get the file again"},
		{"fewer labels than images", func(f map[string][]byte) { f[trainLabels.name] = f[testLabels.name] }, Config{Lookalike: true}, ErrFormat,
			"expected a label for each of 24 images, came 3 labels"},
		{"too few to hold out", func(f map[string][]byte) {
			f[trainImages.name], f[trainLabels.name] = f[testImages.name], f[testLabels.name]
		}, Config{Lookalike: true}, ErrFormat, "at least 12 training examples, came 3"},
		{"one of four missing", func(f map[string][]byte) { delete(f, testLabels.name) }, Config{Lookalike: true}, ErrMissing,
			testLabels.name},
		{"all missing", func(f map[string][]byte) { clear(f) }, Config{}, ErrMissing, "Config.Dir"},
		{"a negative batch", func(f map[string][]byte) {}, Config{Lookalike: true, Batch: -1}, ErrConfig, "came -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := small()
			c.change(files)
			c.cfg.Dir = write(t, files)
			_, err := Open(c.cfg)
			var typed *Error
			if !errors.Is(err, c.kind) || !errors.As(err, &typed) {
				t.Fatalf("%v, expected an *Error of kind %v", err, c.kind)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q doesn't say %q", err, c.want)
			}
		})
	}
}

// A single changed byte anywhere in the real files is found.
func TestDigestGuardsTheRealFiles(t *testing.T) {
	dir, err := find("")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range []file{trainImages, trainLabels, testImages, testLabels} {
		content, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			t.Fatal(err)
		}
		files[f.name] = content
	}
	for _, at := range []int{4, 9, 1000, len(files[testLabels.name]) - 1} { // 4: the time in gzip's header, which only a digest guards
		content := bytes.Clone(files[testLabels.name])
		content[at] ^= 1
		_, err := load(write(t, map[string][]byte{testImages.name: files[testImages.name], testLabels.name: content}), "test", testImages,
			testLabels, false)
		if !errors.Is(err, ErrDigest) && !errors.Is(err, ErrFormat) {
			t.Errorf("byte %d changed: %v, expected ErrDigest or ErrFormat", at, err)
		}
	}
}

func TestFind(t *testing.T) {
	project := t.TempDir()
	dir := filepath.Join(project, "datasets", "mnist")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(ProjectEnv, project)
	own, err := find("") // the project has no files yet: those next to the source
	if err != nil {
		t.Fatal(err)
	}
	if own == dir {
		t.Errorf("found the empty %s", own)
	}
	if err := os.WriteFile(filepath.Join(dir, trainImages.name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := find(""); err != nil || got != dir {
		t.Errorf("found %q, %v; expected %q", got, err, dir)
	}
	// A directory that was named is the only one looked at.
	if got, err := find(t.TempDir()); !errors.Is(err, ErrMissing) {
		t.Errorf("found %q, %v in an empty directory; expected ErrMissing", got, err)
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		if _, err := Open(Config{}); err != nil {
			b.Fatal(err)
		}
	}
}
