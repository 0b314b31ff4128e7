// Package imagefolder opens folders of PNG and JPEG images, one folder per class, in a directory or in a tar or tar.gz archive.
//
// Two layouts are understood, alone or below folders that hold nothing else:
//
//	CLASS/IMAGE               the parts are drawn by a seed, from each class in proportion
//	train/CLASS/IMAGE, …      with test and val (or valid, or validation) beside train; a missing part is drawn from train
//
// Archives are streamed: nothing of them is written to disk. Names that leave the archive, links, devices, duplicates and
// decompression bombs are refused. What was decoded is kept in a cache, by the digest of what it was decoded from.
package imagefolder

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/datasets/internal/cache"
	"github.com/espalier-ml/espalier/datasets/internal/fault"
	"github.com/espalier-ml/espalier/datasets/internal/memory"
	"github.com/espalier-ml/espalier/pkg/backend/home"
)

type (
	// Data is a data set in three parts.
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
	ErrUnsafe  = fault.ErrUnsafe
	ErrLimit   = fault.ErrLimit
	ErrCache   = fault.ErrCache // told to Config.Warn, never returned
)

// Config says what to open, and how.
type Config struct {
	// Path is a directory, or a tar archive, compressed by gzip or not.
	Path string
	// Size is the side in pixels to which each image is brought: the largest square in its middle is scaled to Size by Size, by
	// bilinear interpolation over the area that a pixel covers. Default: images are taken as they are, and must have one size.
	Size int
	// Channels is 1 for gray or 3 for colour. Default: 1 when all images are gray, else 3. Transparency is dropped.
	Channels int
	// Validation and Test are the shares of each class that are held out where there is no folder for that part, rounded. Default: 0.1.
	Validation, Test float64
	// SplitSeed chooses what is held out, and the order in which examples are stored.
	SplitSeed int64
	// Batch is the number of examples in a training batch. Default: 128.
	Batch int
	// Seed shuffles the training set. It does not touch the split.
	Seed int64
	// MaxBytes bounds the memory for the images, encoded and decoded. Default: 4 GiB.
	MaxBytes int64
	// CacheDir is where decoded images are kept. Default: "imagefolder" in Espalier's cache.
	CacheDir string
	// Warn is told what is wrong with the cache; the data set is opened all the same. Default: a line on standard error.
	Warn func(error)
}

// Open returns the images of cfg.Path: inputs uint8 [n, height, width, channels] and labels by the alphabetical order of the class
// folders, or by their numbers if all of them are named by numbers (2 before 10). The parts are stored in mixed order, so that the first n examples are a sample of all classes.
//
// The decoder of JPEG images is that of the Go release the program was built with, and may round differently in another.
//
// The error is an *Error: ErrMissing or ErrConfig, ErrFormat for what can't be decoded or has no place in the layout, ErrUnsafe and
// ErrLimit for what is refused. It names the entry.
//
// What damage is noticed depends on the format of the images: PNG has checksums, as has an archive that is compressed; a JPEG image that was damaged may be
// one of other pixels. The digests of the parts tell. Pickles, .npy, .npz and .pt files are refused: opening a pickle runs what is in it.
func Open(cfg Config) (*Data, error) { return open(cfg, standard) }

func open(cfg Config, lim limits) (*Data, error) {
	if err := cfg.settle(&lim); err != nil {
		return nil, err
	}
	src, err := find(cfg.Path, lim)
	if err != nil {
		return nil, err
	}
	defer src.close()
	digest, err := src.digest()
	if err != nil {
		return nil, err
	}
	// All that the decoded bytes depend on.
	key := sha256.Sum256(fmt.Appendf(nil, "2 %s %s size %d channels %d validation %g test %g seed %d", runtime.Version(), digest, cfg.Size,
		cfg.Channels, cfg.Validation, cfg.Test, cfg.SplitSeed))
	parts, err := cache.Keep(cfg.CacheDir, hex.EncodeToString(key[:]), func() (memory.Parts, error) {
		entries, err := src.entries()
		if err != nil {
			return memory.Parts{}, err
		}
		return decode(entries, cfg, lim)
	}, cfg.Warn)
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(filepath.Base(cfg.Path), ".")
	parts.Train.Name, parts.Validation.Name, parts.Test.Name = name, name, name
	return parts.Open(cfg.Batch, cfg.Seed)
}

// settle puts in the defaults and checks the bounds.
func (cfg *Config) settle(lim *limits) error {
	bad := func(expected string, came any) error {
		return &Error{Kind: ErrConfig, File: cfg.Path, Expected: expected, Came: fmt.Sprint(came)}
	}
	if cfg.Path == "" {
		return bad("a directory or archive in Config.Path", "none")
	}
	if cfg.Size < 0 || cfg.Size*cfg.Size > lim.pixels || cfg.Size > lim.pixels {
		return bad(fmt.Sprintf("a Size from 1 to %.0f, or 0 to take the images as they are", math.Sqrt(float64(lim.pixels))), cfg.Size)
	}
	if cfg.Channels != 0 && cfg.Channels != 1 && cfg.Channels != 3 {
		return bad("Channels 1 or 3, or 0 to go by the images", cfg.Channels)
	}
	for name, share := range map[string]*float64{"Validation": &cfg.Validation, "Test": &cfg.Test} {
		if *share == 0 {
			*share = 0.1
		}
		if !(*share > 0 && *share < 1) { // NaN too
			return bad("a share between 0 and 1 in "+name+", or 0 for 0.1", strconv.FormatFloat(*share, 'g', -1, 64))
		}
	}
	if cfg.Validation+cfg.Test >= 1 {
		return bad("shares for validation and test that leave some for training", cfg.Validation+cfg.Test)
	}
	if cfg.MaxBytes < 0 {
		return bad("MaxBytes of 1 or more, or 0 for 4 GiB", cfg.MaxBytes)
	}
	if cfg.MaxBytes > 0 {
		lim.bytes = cfg.MaxBytes
	}
	if cfg.Warn == nil {
		cfg.Warn = fault.Warn
	}
	if cfg.CacheDir == "" {
		dir, err := home.CacheDir()
		if err != nil {
			return &Error{Kind: ErrConfig, File: cfg.Path, Expected: "a place for the cache", Came: "none", Err: err,
				Remedy: "set Config.CacheDir or $" + home.Env}
		}
		cfg.CacheDir = filepath.Join(dir, "imagefolder")
	}
	return nil
}

// limits bound what a hostile directory or archive can make this package do.
type limits struct {
	entries int   // names, folders and ignored files included
	file    int64 // bytes of an encoded image
	bytes   int64 // of all images, encoded, and again decoded
	pixels  int   // of an image
	ratio   int64 // bytes out of the archive per byte in, once it has given more than slack
	slack   int64
	density int // pixels per encoded byte of an image that has more than a million, and of all that together have more than pixels
}

var standard = limits{
	entries: 1_000_000,
	file:    32 << 20,
	bytes:   4 << 30,
	pixels:  1 << 24,
	ratio:   200, // a bomb reaches 1032; tar archives of small images seldom 10
	slack:   16 << 20,
	density: 512,
}
