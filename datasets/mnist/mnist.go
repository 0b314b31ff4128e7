// Package mnist opens MNIST: 70,000 handwritten digits of 28x28 gray pixels (LeCun, Bottou, Bengio and Haffner 1998,
// "Gradient-based learning applied to document recognition").
//
// The four files lie next to this source. Their digests are checked whenever they are opened.
package mnist

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
	"github.com/espalier-ml/espalier/datasets/internal/idx"
	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

type (
	// Data is MNIST in three parts.
	Data = memory.Splits
	// Dataset is one part. It implements GoMLX's train.Dataset (Name, Iter). Take, WithBatch, WithSeed and Shuffled return views of it
	// that share its arrays; Len, Label, Image, ClassNames, Shape and Digest tell what is in it; Arrays, Order, Batch and Decode are
	// for training loops that keep the data on the device.
	Dataset = memory.Dataset
	// Error is the error of this package; its kind is one of the Err… values.
	Error = fault.Error
)

// The kinds of an Error, for errors.Is.
var (
	ErrConfig  = fault.ErrConfig
	ErrMissing = fault.ErrMissing
	ErrFormat  = fault.ErrFormat
	ErrDigest  = fault.ErrDigest
)

// Config says what to open. The zero value is MNIST from the project's own files.
type Config struct {
	// Dir holds the four files. Default: datasets/mnist in $ESPALIER_PROJECT, else the directory of this package's source.
	Dir string
	// Batch is the number of examples in a training batch. Default: 128.
	Batch int
	// Seed shuffles the training set. It does not touch the split.
	Seed int64
	// Lookalike says that Dir holds another data set in MNIST's format, such as Fashion-MNIST: its digests and the number and size
	// of its images are not checked; headers, labels and checksums are. One in twelve training examples is held out.
	Lookalike bool
}

// ProjectEnv is the environment variable that names the directory of the project.
const ProjectEnv = "ESPALIER_PROJECT"

const (
	classes    = 10
	validation = 5000
	// maxFile bounds the size of a compressed file; the largest one of MNIST has 9.9 MB.
	maxFile = 256 << 20
)

// file is one of the four.
type file struct{ name, sha256 string }

var (
	trainImages = file{"train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"}
	trainLabels = file{"train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"}
	testImages  = file{"t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"}
	testLabels  = file{"t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"}
)

// Open returns 55,000 examples for training, 5,000 for validation and 10,000 for test: inputs uint8 [n, 28, 28, 1], labels 0 to 9. Batches of Iter are float32 from 0 to 1.
//
// The validation part is the last 5,000 examples of the training files, as in much published code: it can be said in a few words and
// repeated in any language, and the files are in mixed order already, so that a permutation would add nothing but a seed.
//
// The error is an *Error of kind ErrMissing, ErrFormat, ErrDigest or ErrConfig.
func Open(cfg Config) (*Data, error) {
	dir, err := find(cfg.Dir)
	if err != nil {
		return nil, err
	}
	var (
		wg    sync.WaitGroup
		parts [2]memory.Contents
		errs  [2]error
	)
	for i, p := range []struct {
		name           string
		images, labels file
	}{{"train", trainImages, trainLabels}, {"test", testImages, testLabels}} {
		wg.Go(func() { parts[i], errs[i] = load(dir, p.name, p.images, p.labels, cfg.Lookalike) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	held := validation
	if cfg.Lookalike {
		held = len(parts[0].Labels) / 12
	}
	if held == 0 {
		return nil, &Error{Kind: ErrFormat, File: filepath.Join(dir, trainImages.name), Expected: "at least 12 training examples",
			Came: fmt.Sprint(len(parts[0].Labels))}
	}
	var all memory.Parts
	all.Train, all.Validation = memory.HoldOut(parts[0], held)
	all.Test = parts[1]
	return all.Open(cfg.Batch, cfg.Seed)
}

// find returns the directory that holds the files.
func find(dir string) (string, error) {
	places := []string{dir}
	if dir == "" {
		places = nil
		if project := os.Getenv(ProjectEnv); project != "" {
			places = append(places, filepath.Join(project, "datasets", "mnist"))
		}
		// Programs built with -trimpath don't know the directory, only the import path.
		if _, source, _, ok := runtime.Caller(0); ok && filepath.IsAbs(source) {
			places = append(places, filepath.Dir(source))
		}
	}
	for _, place := range places {
		if _, err := os.Stat(filepath.Join(place, trainImages.name)); err == nil {
			return place, nil
		}
	}
	return "", &Error{Kind: ErrMissing, File: "MNIST", Expected: fmt.Sprintf("%s and its three companions in %s", trainImages.name,
		strings.Join(places, " or ")), Came: "no such file", Remedy: "name the directory that holds them in Config.Dir, or the project's in $" + ProjectEnv}
}

// load reads and checks the images and labels of one part.
func load(dir, part string, imagesFile, labelsFile file, lookalike bool) (memory.Contents, error) {
	var none memory.Contents
	path, compressed, err := imagesFile.read(dir)
	if err != nil {
		return none, err
	}
	// The content is looked at before the digest, because what is wrong with it says more than that it isn't the published one.
	images, err := idx.ReadImages(path, compressed)
	if err == nil && !lookalike {
		err = imagesFile.verify(path, compressed)
	}
	if err != nil {
		return none, err
	}
	path, compressed, err = labelsFile.read(dir)
	if err != nil {
		return none, err
	}
	labels, err := idx.ReadLabels(path, compressed, classes)
	if err == nil && !lookalike {
		err = labelsFile.verify(path, compressed)
	}
	if err != nil {
		return none, err
	}
	if len(labels) != images.Count {
		return none, &Error{Kind: ErrFormat, File: path, Offset: 4, Expected: fmt.Sprintf("a label for each of %d images", images.Count),
			Came: fmt.Sprintf("%d labels", len(labels)), Remedy: "take both files from one source"}
	}
	name := "mnist"
	if lookalike {
		name = filepath.Base(dir)
	}
	return memory.Contents{Name: name, Part: part, Height: images.Height, Width: images.Width, Channels: 1, Inputs: images.Pixels,
		Labels: labels, ClassNames: []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}}, nil
}

// read returns the path and the compressed content of f.
func (f file) read(dir string) (path string, compressed []byte, err error) {
	path = filepath.Join(dir, f.name)
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		return path, nil, &Error{Kind: ErrFormat, File: path, Expected: fmt.Sprintf("a file of at most %d bytes", maxFile),
			Came: fmt.Sprintf("%v of %d", info.Mode().Type(), info.Size())}
	}
	if err == nil {
		compressed, err = os.ReadFile(path)
	}
	if err != nil {
		return path, nil, &Error{Kind: ErrMissing, File: path, Expected: "a file that can be read", Came: "none",
			Remedy: "get the four files again", Err: err}
	}
	return path, compressed, nil
}

// verify compares the SHA-256 of f with that of the published file.
func (f file) verify(path string, compressed []byte) error {
	sum := sha256.Sum256(compressed)
	if came := hex.EncodeToString(sum[:]); came != f.sha256 {
		return &Error{Kind: ErrDigest, File: path, Expected: "SHA-256 " + f.sha256, Came: came,
			Remedy: "get the file again, or set Config.Lookalike if it is meant to be another data set"}
	}
	return nil
}
