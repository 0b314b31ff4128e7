// Package cifar10 opens CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes (Krizhevsky 2009, "Learning multiple layers of
// features from tiny images").
//
// It takes the binary version that its author publishes, or the same images as files in class folders. Nothing is downloaded unless
// asked for.
package cifar10

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/espalier-ml/espalier/datasets/imagefolder"
	"github.com/espalier-ml/espalier/datasets/internal/cache"
	"github.com/espalier-ml/espalier/datasets/internal/fault"
	"github.com/espalier-ml/espalier/datasets/internal/fetch"
	"github.com/espalier-ml/espalier/datasets/internal/memory"
	"github.com/espalier-ml/espalier/pkg/backend/home"
)

type (
	// Data is CIFAR-10 in three parts.
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
	ErrConfig   = fault.ErrConfig
	ErrMissing  = fault.ErrMissing
	ErrFormat   = fault.ErrFormat
	ErrDigest   = fault.ErrDigest
	ErrUnsafe   = fault.ErrUnsafe
	ErrLimit    = fault.ErrLimit
	ErrCache    = fault.ErrCache // told to Config.Warn, never returned
	ErrDownload = fault.ErrDownload
)

// Config says what to open. The zero value is a local copy, wherever one is found.
type Config struct {
	// Path is a local copy: the published archive cifar-10-binary.tar.gz, a directory with the files of it, or a directory or archive
	// with the folders train and test and in each of them one folder of PNG or JPEG images per class.
	// Default: $ESPALIER_CIFAR10, else what was downloaded before.
	Path string
	// Download says that the published archive (170 MB) may be downloaded when there is no local copy.
	Download bool
	// Progress is told the bytes that were downloaded, of all. Default: nobody is.
	Progress func(done, total int64)
	// Batch is the number of examples in a training batch. Default: 128.
	Batch int
	// Seed shuffles the training set. It does not touch the split.
	Seed int64
	// CacheDir is where the archive and decoded images are kept. Default: Espalier's cache.
	CacheDir string
	// Warn is told what is wrong with the cache of decoded images; the data set is opened all the same. Default: a line on standard
	// error.
	Warn func(error)
}

// PathEnv is the environment variable that names a local copy.
const PathEnv = "ESPALIER_CIFAR10"

// classNames are the classes in the order of the labels.
var classNames = []string{"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}

const (
	side     = 32
	channels = 3
)

// release is what was published.
type release struct {
	archive fetch.File
	batch   int               // examples in each of five training files, and in the test file
	sha256  map[string]string // of each file, as they come out of the archive
}

var published = release{
	archive: fetch.File{URL: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", Size: 170052171,
		SHA256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
	batch: 10000,
	sha256: map[string]string{
		"data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
		"data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
		"data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
		"data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
		"data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
		"test_batch.bin":   "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
	},
}

// Open returns 45,000 examples for training, 5,000 for validation and 10,000 for test: inputs uint8 [n, 32, 32, 3], labels 0 to 9.
//
// The validation part is the last 5,000 examples of the training files. Image folders have lost that order; of them it is 500 of each
// class, chosen once and for all. JPEG images are not the pixels that were published, so that results on them are close to those in
// the literature, and no more; the digests tell the two apart.
//
// Of the published archive, and of files unpacked from it, the SHA-256 is checked, so that nothing that happened to them goes unnoticed. Images in class
// folders have no digest that is known; PNG has checksums, and JPEG has none, so that a JPEG file that was damaged may be one of other pixels.
// The version for Python is refused, because opening a pickle runs what is in it.
//
// The error is an *Error. ErrMissing says that there is no local copy and Download isn't set; it names both remedies.
func Open(cfg Config) (*Data, error) {
	return open(context.Background(), cfg, published, fetch.Options{})
}

// Download fetches the published archive into the cache, unless it is there, and returns its path. An interrupted download goes on
// where it stopped when it is asked for again; the file has its name only once its SHA-256 is right. Of cfg it takes CacheDir and
// Progress. The error is an *Error of kind ErrDownload or ErrDigest.
func Download(ctx context.Context, cfg Config) (path string, err error) {
	if err := cfg.settle(); err != nil {
		return "", err
	}
	return cfg.download(ctx, published, fetch.Options{})
}

func (cfg Config) download(ctx context.Context, r release, o fetch.Options) (string, error) {
	o.Progress = cfg.Progress
	path := cfg.archive(r)
	return path, fetch.Get(ctx, r.archive, path, o)
}

// archive returns where the published archive is kept.
func (cfg Config) archive(r release) string {
	return filepath.Join(cfg.CacheDir, filepath.Base(r.archive.URL))
}

// settle puts in the defaults.
func (cfg *Config) settle() error {
	if cfg.Batch < 0 {
		return &Error{Kind: ErrConfig, File: "CIFAR-10", Expected: "a Batch of 1 or more, or 0 for the default", Came: fmt.Sprint(cfg.Batch)}
	}
	if cfg.Warn == nil {
		cfg.Warn = fault.Warn
	}
	if cfg.CacheDir == "" {
		var err error
		if cfg.CacheDir, err = home.CacheDir(); err != nil {
			return &Error{Kind: ErrConfig, File: "CIFAR-10", Expected: "a place for the cache", Came: "none", Err: err,
				Remedy: "set Config.CacheDir or $" + home.Env}
		}
	}
	return nil
}

func open(ctx context.Context, cfg Config, r release, o fetch.Options) (*Data, error) {
	if err := cfg.settle(); err != nil {
		return nil, err
	}
	path, err := cfg.find(ctx, r, o)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, &Error{Kind: ErrMissing, File: path, Expected: "a copy of CIFAR-10", Came: "nothing that can be read", Err: err}
	}
	if info.IsDir() {
		for _, dir := range []string{path, filepath.Join(path, batchesDir)} {
			if _, err := os.Stat(filepath.Join(dir, batchNames[0])); err == nil {
				parts, err := readDir(dir, r)
				if err != nil {
					return nil, err
				}
				return parts.Open(cfg.Batch, cfg.Seed)
			}
		}
		if err := refusePickles(path, true); err != nil {
			return nil, err
		}
		return cfg.folders(path, r)
	}
	if !info.Mode().IsRegular() { // which might never end, or never begin
		return nil, &Error{Kind: ErrUnsafe, File: path, Expected: "a file or a directory", Came: info.Mode().Type().String()}
	}
	if path != cfg.archive(r) && starts(path) != ofBatches {
		if err := refusePickles(path, false); err != nil {
			return nil, err
		}
		return cfg.folders(path, r)
	}
	if err := r.archive.Verify(path); err != nil {
		return nil, err
	}
	parts, err := cache.Keep(filepath.Join(cfg.CacheDir, "cifar10"), r.archive.SHA256, func() (memory.Parts, error) {
		return readArchive(path, r)
	}, cfg.Warn)
	if err != nil {
		return nil, err
	}
	return parts.Open(cfg.Batch, cfg.Seed)
}

// find returns the path of a local copy, which it downloads if it may.
func (cfg Config) find(ctx context.Context, r release, o fetch.Options) (string, error) {
	if cfg.Path != "" {
		return cfg.Path, nil
	}
	if path := os.Getenv(PathEnv); path != "" {
		return path, nil
	}
	if cfg.Download {
		return cfg.download(ctx, r, o)
	}
	path := cfg.archive(r)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", &Error{Kind: ErrMissing, File: "CIFAR-10", Expected: "a local copy in Config.Path, in $" + PathEnv + " or at " + path,
			Came:   "none",
			Remedy: fmt.Sprintf("set Config.Download to get %s (%d MB), or name a copy in Config.Path", r.archive.URL, r.archive.Size/1e6)}
	}
	return path, nil
}

// folders opens CIFAR-10 as images in class folders.
func (cfg Config) folders(path string, r release) (*Data, error) {
	held := r.batch / 2
	data, err := imagefolder.Open(imagefolder.Config{Path: path, Channels: channels, Validation: float64(held) / float64(5*r.batch),
		Batch: cfg.Batch, Seed: cfg.Seed, CacheDir: filepath.Join(cfg.CacheDir, "imagefolder"), Warn: cfg.Warn})
	if err != nil {
		return nil, err
	}
	type layout struct {
		Train, Validation, Test int
		Shape                   []int
		Classes                 []string
	}
	want := layout{5*r.batch - held, held, r.batch, []int{side, side, channels}, classNames}
	got := layout{data.Train.Len(), data.Validation.Len(), data.Test.Len(), data.Train.Shape(), data.Train.ClassNames()}
	if got.Train != want.Train || got.Validation != want.Validation || got.Test != want.Test || !slices.Equal(got.Shape, want.Shape) ||
		!slices.Equal(got.Classes, want.Classes) {
		return nil, &Error{Kind: ErrFormat, File: path, Expected: fmt.Sprintf("CIFAR-10: %+v", want), Came: fmt.Sprintf("%+v", got),
			Remedy: "open other images by the package imagefolder"}
	}
	return data, nil
}
