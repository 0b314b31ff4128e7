package cifar10

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/internal/fetch"
)

// batch is the number of records in each file of the small release.
const batch = 20

// records returns a file of the small release: example i has label i mod 10, red i, green file, and in blue the pixel's number.
func records(file int) []byte {
	var b []byte
	for i := range batch {
		b = append(b, byte(i%10))
		b = append(b, bytes.Repeat([]byte{byte(i)}, 1024)...)
		b = append(b, bytes.Repeat([]byte{byte(file)}, 1024)...)
		for p := range 1024 {
			b = append(b, byte(p))
		}
	}
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// archived returns the files as a compressed archive, in the layout of the published one.
func archived(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	headers := []tar.Header{{Name: batchesDir + "/", Typeflag: tar.TypeDir, Mode: 0o755}}
	for _, name := range append([]string{"readme.html"}, batchNames...) {
		if content, found := files[name]; found {
			headers = append(headers, tar.Header{Name: batchesDir + "/" + name, Mode: 0o644, Size: int64(len(content))})
		}
	}
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[filepath.Base(h.Name)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// small returns a release of 6 times batch records, its files and its archive.
func small(t testing.TB) (r release, files map[string][]byte, archive []byte) {
	files = map[string][]byte{"readme.html": []byte("<html>")}
	r = release{batch: batch, sha256: map[string]string{}}
	for i, name := range batchNames {
		files[name] = records(i)
		r.sha256[name] = digest(files[name])
	}
	archive = archived(t, files)
	r.archive = fetch.File{URL: "http://127.0.0.1:1/cifar-10-binary.tar.gz", Size: int64(len(archive)), SHA256: digest(archive)}
	return r, files, archive
}

func saved(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// config returns a Config with a cache of its own, in which nothing may go wrong, and no copy in the environment.
func config(t *testing.T, path string) Config {
	t.Setenv(PathEnv, "")
	return Config{Path: path, CacheDir: t.TempDir(), Warn: func(err error) { t.Error(err) }}
}

func refused(t *testing.T, err, kind error, want string) {
	t.Helper()
	var typed *Error
	if !errors.As(err, &typed) || !errors.Is(err, kind) {
		t.Fatalf("%v, expected an *Error of kind %q", err, kind)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%q doesn't say %q", err, want)
	}
}

// check fails unless data is the small release.
func check(t *testing.T, data *Data, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{data.Train.String(), data.Validation.String(), data.Test.String()}
	want := []string{
		"cifar10 train: 90 examples, 32x32x3, 10 classes, batch 90",
		"cifar10 validation: 10 examples, 32x32x3, 10 classes, batch 10",
		"cifar10 test: 20 examples, 32x32x3, 10 classes, batch 20",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, c := range []struct {
		d          *Dataset
		example    int
		label      int
		x, y       int
		colour     color.NRGBA
		comesFirst string
	}{
		{data.Train, 23, 3, 0, 0, color.NRGBA{3, 1, 0, 255}, "the fourth of the second file"},
		{data.Validation, 0, 0, 5, 1, color.NRGBA{10, 4, 37, 255}, "the eleventh of the fifth file"},
		{data.Test, 19, 9, 31, 31, color.NRGBA{19, 5, 255, 255}, "the last of the test file"},
	} {
		if label, colour := c.d.Label(c.example), c.d.Image(c.example).At(c.x, c.y); label != c.label || colour != c.colour {
			t.Errorf("example %d of %s, %s: label %d, colour %v; expected %d, %v", c.example, c.d.Name(), c.comesFirst, label, colour,
				c.label, c.colour)
		}
	}
}

func TestLocalCopies(t *testing.T) {
	r, files, archive := small(t)
	dir := t.TempDir()
	inside := filepath.Join(dir, batchesDir)
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(inside, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := saved(t, "anything", archive)
	for _, path := range []string{file, dir, inside} {
		data, err := open(t.Context(), config(t, path), r, fetch.Options{})
		check(t, data, err)
	}
	cfg := config(t, "")
	t.Setenv(PathEnv, file)
	for range 2 { // decoded, and from the cache
		data, err := open(t.Context(), cfg, r, fetch.Options{})
		check(t, data, err)
	}
	kept, err := filepath.Glob(filepath.Join(cfg.CacheDir, "cifar10", "*.decoded"))
	if err != nil || len(kept) != 1 {
		t.Errorf("%v, %v; expected one decoded copy", kept, err)
	}
}

func TestNothingIsDownloadedUnasked(t *testing.T) {
	r, _, archive := small(t)
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		requests++
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(archive))
	}))
	defer server.Close()
	r.archive.URL = server.URL + "/kriz/cifar-10-binary.tar.gz"
	cfg := config(t, "")
	_, err := open(t.Context(), cfg, r, fetch.Options{})
	refused(t, err, ErrMissing, "set Config.Download")
	refused(t, err, ErrMissing, "name a copy in Config.Path")
	if requests != 0 {
		t.Fatalf("%d requests without Download", requests)
	}
	cfg.Download = true
	done := int64(0)
	cfg.Progress = func(d, _ int64) { done = d }
	data, err := open(t.Context(), cfg, r, fetch.Options{})
	check(t, data, err)
	if requests != 1 || done != r.archive.Size {
		t.Errorf("%d requests, progress up to %d; expected 1 and %d", requests, done, r.archive.Size)
	}
	cfg.Download = false // it is there now
	data, err = open(t.Context(), cfg, r, fetch.Options{})
	check(t, data, err)
	path, err := cfg.download(context.Background(), r, fetch.Options{})
	if want := filepath.Join(cfg.CacheDir, "cifar-10-binary.tar.gz"); err != nil || path != want || requests != 1 {
		t.Errorf("%q, %v after %d requests; expected %q after 1", path, err, requests, want)
	}
}

func TestAFailedDownloadIsNoDataSet(t *testing.T) {
	r, _, _ := small(t) // at an address where nobody listens
	cfg := config(t, "")
	cfg.Download = true
	_, err := open(t.Context(), cfg, r, fetch.Options{Wait: time.Millisecond, Attempts: 2})
	refused(t, err, ErrDownload, "try again")
	cfg.Download = false
	_, err = open(t.Context(), cfg, r, fetch.Options{})
	refused(t, err, ErrMissing, "set Config.Download")
}

func TestPublishedReleaseIsNamedWhole(t *testing.T) {
	if len(published.sha256) != len(batchNames) {
		t.Errorf("digests for %d of %d files", len(published.sha256), len(batchNames))
	}
	for _, name := range batchNames {
		if b, err := hex.DecodeString(published.sha256[name]); err != nil || len(b) != sha256.Size {
			t.Errorf("%s has the digest %q", name, published.sha256[name])
		}
	}
	_, err := Open(Config{Batch: -1})
	refused(t, err, ErrConfig, "came -1")
}

func TestWrongCopiesAreRefused(t *testing.T) {
	r, files, archive := small(t)
	with := func(name string, change func([]byte) []byte) string {
		dir := t.TempDir()
		for _, n := range batchNames {
			content := files[n]
			if n == name {
				if content = change(bytes.Clone(content)); content == nil {
					continue
				}
			}
			if err := os.WriteFile(filepath.Join(dir, n), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, c := range []struct {
		name, path string
		kind       error
		want       string
	}{
		{"none", filepath.Join(t.TempDir(), "none"), ErrMissing, "none"},
		{"a cut archive", saved(t, "cut", archive[:len(archive)-50]), ErrDigest, "remove the file and get it again"},
		{"a flipped bit", with("test_batch.bin", func(b []byte) []byte { b[500] ^= 1; return b }), ErrDigest, "unpack the archive again"},
		{"label 255", with("data_batch_2.bin", func(b []byte) []byte { b[recordSize] = 255; return b }), ErrFormat,
			"at byte 3073: malformed data: expected labels from 0 to 9, came label 255 of example 1"},
		{"a record cut", with("data_batch_3.bin", func(b []byte) []byte { return b[:len(b)-1] }), ErrFormat, "came 61459 bytes"},
		{"a record too many", with("data_batch_3.bin", func(b []byte) []byte { return append(b, b[:recordSize]...) }), ErrFormat, "came more"},
		{"a file missing", with("data_batch_4.bin", func([]byte) []byte { return nil }), ErrMissing, "data_batch_4.bin"},
		{"a page of HTML", saved(t, "cifar-10-binary.tar.gz", []byte("<html>not here</html>")), ErrFormat, "tar archive"},
		{"an empty directory", t.TempDir(), ErrFormat, "in class folders"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open(t.Context(), config(t, c.path), r, fetch.Options{})
			refused(t, err, c.kind, c.want)
		})
	}
	// An archive that has the right digest and yet lacks a file.
	delete(files, "data_batch_5.bin")
	short := archived(t, files)
	r.archive.Size, r.archive.SHA256 = int64(len(short)), digest(short)
	_, err := open(t.Context(), config(t, saved(t, "short", short)), r, fetch.Options{})
	refused(t, err, ErrFormat, `"data_batch_5.bin"`)
}

// folders writes n images of w by 32 for each class below train and a fifth of that below test.
func folders(t *testing.T, n, w int, classes []string) string {
	t.Helper()
	dir := t.TempDir()
	for class, name := range classes {
		for i := range n + n/5 {
			part := "train"
			if i >= n {
				part = "test"
			}
			m := image.NewRGBA(image.Rect(0, 0, w, 32))
			for p := range w * 32 {
				m.SetRGBA(p%w, p/w, color.RGBA{byte(class), byte(i), byte(p), 255})
			}
			path := filepath.Join(dir, part, name, fmt.Sprintf("%04d.png", i))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := png.Encode(&b, m); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestImageFolders(t *testing.T) {
	r, _, _ := small(t)
	data, err := open(t.Context(), config(t, folders(t, batch/2, 32, classNames)), r, fetch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		d   *Dataset
		len int
	}{{data.Train, 90}, {data.Validation, 10}, {data.Test, 20}} {
		if c.d.Len() != c.len {
			t.Errorf("%s has %d examples, expected %d", c.d.Name(), c.d.Len(), c.len)
		}
		for i := range c.d.Len() {
			if got := c.d.Image(i).At(2, 1).(color.NRGBA); int(got.R) != c.d.Label(i) || got.B != 34 {
				t.Errorf("example %d of %s has label %d and colour %v", i, c.d.Name(), c.d.Label(i), got)
			}
		}
	}
	for name, path := range map[string]string{
		"too few":       folders(t, batch/4, 32, classNames),
		"too wide":      folders(t, batch/2, 33, classNames),
		"other classes": folders(t, batch/2, 32, append([]string{"apple"}, classNames[1:]...)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t.Context(), config(t, path), r, fetch.Options{})
			refused(t, err, ErrFormat, "open other images by the package imagefolder")
		})
	}
}

// images returns the archive of all of CIFAR-10 as JPEG files.
func images(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(PathEnv); path != "" {
		return path
	}
	path := filepath.Join("..", "..", "..", "shared", "data", "cifar10-jpeg.tar.gz") // beside the repository
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs a copy of CIFAR-10, which is too large to be committed: name it in $%s", PathEnv)
	}
	return path
}

func TestAllOfCIFAR10(t *testing.T) {
	path := images(t)
	cfg := config(t, path)
	start := time.Now()
	data, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	decoded := time.Since(start)
	start = time.Now()
	again, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("opened in %v, and in %v from the cache", decoded, time.Since(start))
	var counts [3][10]int
	for part, d := range []*Dataset{data.Train, data.Validation, data.Test} {
		for i := range d.Len() {
			counts[part][d.Label(i)]++
		}
	}
	var want [3][10]int
	for class := range 10 {
		want[0][class], want[1][class], want[2][class] = 4500, 500, 1000
	}
	if !strings.HasPrefix(data.Train.Name(), "cifar10-jpeg") { // the published archive isn't split by class
		want[0], want[1] = counts[0], counts[1]
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("examples of each class in each part: -want +got\n%s", diff)
	}
	if data.Train.Len() != 45000 || data.Validation.Len() != 5000 || data.Test.Len() != 10000 {
		t.Errorf("%d, %d and %d examples", data.Train.Len(), data.Validation.Len(), data.Test.Len())
	}
	if data.Train.Digest() != again.Train.Digest() || data.Test.Digest() != again.Test.Digest() {
		t.Error("what the cache gives is other data")
	}
	// The channel means of the training images, 0.4914, 0.4822 and 0.4465, stand in every recipe.
	var sums [3]float64
	for i := range data.Train.Len() / 10 {
		m := data.Train.Image(i).(*image.NRGBA)
		for p := range side * side {
			for k := range sums {
				sums[k] += float64(m.Pix[4*p+k]) / 255
			}
		}
	}
	for k, want := range []float64{0.4914, 0.4822, 0.4465} {
		if got := sums[k] / float64(data.Train.Len()/10*side*side); got < want-0.01 || got > want+0.01 {
			t.Errorf("mean of channel %d over a tenth of the training images: %.4f, expected about %.4f", k, got, want)
		}
	}
}

// The record parser never panics, lets no wrong label through and no byte go by.
func FuzzReadBatch(f *testing.F) {
	f.Add(records(0)[:2*recordSize])
	f.Add(records(0)[:recordSize-1])
	f.Add(append([]byte{255}, make([]byte, 2*recordSize-1)...))
	f.Add(records(0)[:3*recordSize])
	f.Fuzz(func(t *testing.T, data []byte) {
		inputs, labels := make([]uint8, 2*imageSize), make([]int32, 2)
		err := readBatch("f", "", bytes.NewReader(data), inputs, labels)
		if err == nil {
			if len(data) != 2*recordSize || labels[0] > 9 || labels[1] > 9 {
				t.Errorf("%d bytes with labels %v came through", len(data), labels)
			}
			return
		}
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%v is no ErrFormat", err)
		}
	})
}

// Every cut and every flipped bit of a file is found.
func TestTruncationAndFlipsAreNoticed(t *testing.T) {
	r, files, _ := small(t)
	name := batchNames[0]
	for k := range 64 {
		at := k * len(files[name]) / 64
		flipped := bytes.Clone(files[name])
		flipped[at] ^= 0x80
		for what, content := range map[string][]byte{"cut": files[name][:at], "flipped": flipped} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := readDir(dir, r)
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrDigest) {
				t.Errorf("%s at %d: %v, expected ErrFormat or ErrDigest", what, at, err)
			}
		}
	}
}
