package imagefolder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"
)

// encoded returns m as PNG.
func encoded(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plain returns a PNG of w by h pixels of one colour.
func plain(t testing.TB, w, h int, c color.Color) []byte {
	t.Helper()
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, c)
		}
	}
	return encoded(t, m)
}

// gray returns a gray PNG with the given pixels in one row.
func gray(t testing.TB, pixels ...uint8) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, len(pixels), 1))
	copy(m.Pix, pixels)
	return encoded(t, m)
}

// files are contents by name.
type files map[string][]byte

// folders returns n images of 2x1 for each of the classes a, b and c, each with other pixels, below the given folder.
func folders(t testing.TB, below string, n int) files {
	f := files{}
	for class, name := range []string{"a", "b", "c"} {
		for i := range n {
			f[fmt.Sprintf("%s%s/%02d.png", below, name, i)] = gray(t, uint8(100*class), uint8(i))
		}
	}
	return f
}

func (f files) write(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range f {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tar returns the files as an archive, after the given headers, which have no content.
func (f files) tar(t testing.TB, first ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range first {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(f[name])), Mode: 0o644, Format: tar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func squeeze(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func saved(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// config returns a Config with a cache of its own, in which nothing may go wrong.
func config(t testing.TB, path string) Config {
	return Config{Path: path, CacheDir: t.TempDir(), Warn: func(err error) { t.Error(err) }}
}

func mustOpen(t testing.TB, cfg Config) *Data {
	t.Helper()
	data, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func pixels(d *Dataset) []uint8 {
	inputs, _ := d.Arrays()
	return tensors.MustCopyFlatData[uint8](inputs)
}

// refused fails unless err is an *Error of the kind and says want.
func refused(t *testing.T, err error, kind error, want string) {
	t.Helper()
	var typed *Error
	if !errors.As(err, &typed) || !errors.Is(err, kind) {
		t.Fatalf("%v, expected an *Error of kind %q", err, kind)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%q doesn't say %q", err, want)
	}
}

// Each image comes once, with its own pixels and the label of its folder.
func TestClassFolders(t *testing.T) {
	cfg := config(t, folders(t, "", 20).write(t))
	data := mustOpen(t, cfg)
	seen := map[[2]uint8]string{}
	for _, d := range []*Dataset{data.Train, data.Validation, data.Test} {
		counts := [3]int{}
		for i, p := range slices.Collect(slices.Chunk(pixels(d), 2)) {
			pair := [2]uint8{p[0], p[1]}
			if int(p[0]) != 100*d.Label(i) {
				t.Errorf("%s: an image of class %d has label %d", d.Name(), p[0]/100, d.Label(i))
			}
			if other := seen[pair]; other != "" {
				t.Errorf("%v is in %s and in %s", pair, other, d.Name())
			}
			seen[pair] = d.Name()
			counts[d.Label(i)]++
		}
		want := [3]int{2, 2, 2} // a tenth of each class
		if d == data.Train {
			want = [3]int{16, 16, 16}
		}
		if diff := cmp.Diff(want, counts); diff != "" {
			t.Errorf("%s: -want +got\n%s", d.Name(), diff)
		}
	}
	if len(seen) != 60 {
		t.Errorf("%d different images of 60", len(seen))
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, data.Test.ClassNames()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff([]int{1, 2, 1}, data.Train.Shape()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// In mixed order: the first third is no class of its own.
	first := [3]int{}
	for i := range 16 {
		first[data.Train.Label(i)]++
	}
	if slices.Max(first[:]) > 10 || slices.Min(first[:]) < 2 {
		t.Errorf("the first 16 examples have %v of each class", first)
	}
	// The split is a function of SplitSeed alone.
	cfg.Seed = 5
	if again := mustOpen(t, cfg); again.Validation.Digest() != data.Validation.Digest() || again.Train.Digest() != data.Train.Digest() {
		t.Error("Seed changes the split")
	}
	cfg.SplitSeed = 5
	if other := mustOpen(t, cfg); other.Validation.Digest() == data.Validation.Digest() {
		t.Error("SplitSeed doesn't change the split")
	}
}

// Classes that are named by numbers come in the order of these, others in that of letters.
func TestOrderOfClasses(t *testing.T) {
	for _, c := range []struct{ names, want []string }{
		{[]string{"0", "1", "10", "11", "2"}, []string{"0", "1", "2", "10", "11"}},
		{[]string{"007", "01", "1"}, []string{"01", "1", "007"}},
		{[]string{"1", "10", "2", "b"}, []string{"1", "10", "2", "b"}},
		{[]string{"-1", "10", "2"}, []string{"-1", "10", "2"}},
	} {
		if diff := cmp.Diff(c.want, inOrder(slices.Clone(c.names))); diff != "" {
			t.Errorf("%v (-want +got)\n%s", c.names, diff)
		}
	}
	var entries []entry
	for _, name := range []string{"0/a.png", "1/a.png", "10/a.png", "2/a.png"} {
		entries = append(entries, entry{name: name})
	}
	l, err := arrange("root", entries)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{0, 1, 3, 2} {
		if l.images[i].class != want {
			t.Errorf("%s has the label %d, want %d", l.images[i].entry.name, l.images[i].class, want)
		}
	}
}

func TestNamedFolders(t *testing.T) {
	f := folders(t, "set/train/", 10)
	maps.Copy(f, folders(t, "set/test/", 2))
	f["set/README.txt"] = []byte("about it")
	f["set/.DS_Store"] = nil
	f["set/train/a/.thumbnail.png"] = []byte("no image")
	data := mustOpen(t, config(t, f.write(t)))
	got := []int{data.Train.Len(), data.Validation.Len(), data.Test.Len()}
	if diff := cmp.Diff([]int{27, 3, 6}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	maps.Copy(f, folders(t, "set/valid/", 1))
	data = mustOpen(t, config(t, f.write(t)))
	got = []int{data.Train.Len(), data.Validation.Len(), data.Test.Len()}
	if diff := cmp.Diff([]int{30, 3, 6}, got); diff != "" {
		t.Errorf("with a folder for validation: -want +got\n%s", diff)
	}
}

// A directory and its archives, plain and compressed, are one data set.
func TestArchivesEqualTheDirectory(t *testing.T) {
	f := folders(t, "pets/", 10)
	want := mustOpen(t, config(t, f.write(t)))
	packed := f.tar(t, tar.Header{Name: "./pets/", Typeflag: tar.TypeDir}, tar.Header{Name: "pets/", Typeflag: tar.TypeDir})
	for name, content := range map[string][]byte{"pets.tar": packed, "pets.tar.gz": squeeze(t, packed)} {
		got := mustOpen(t, config(t, saved(t, name, content)))
		if got.Train.Digest() != want.Train.Digest() || got.Validation.Digest() != want.Validation.Digest() ||
			got.Test.Digest() != want.Test.Digest() {
			t.Errorf("%s is another data set than the directory", name)
		}
		if got.Train.Name() != "pets train" {
			t.Errorf("%s is called %q", name, got.Train.Name())
		}
	}
}

func TestChannels(t *testing.T) {
	deep := image.NewGray16(image.Rect(0, 0, 2, 1))
	deep.SetGray16(1, 0, color.Gray16{0xABCD})
	palette := image.NewPaletted(image.Rect(0, 0, 2, 1), color.Palette{color.NRGBA{10, 20, 30, 255}, color.NRGBA{40, 50, 60, 255}})
	palette.SetColorIndex(1, 0, 1)
	clear := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	clear.SetNRGBA(0, 0, color.NRGBA{200, 100, 50, 0})
	clear.SetNRGBA(1, 0, color.NRGBA{200, 100, 50, 128})
	for _, c := range []struct {
		name     string
		image    []byte
		channels int
		want     []uint8
	}{
		{"gray", gray(t, 7, 200), 0, []uint8{7, 200}},
		{"gray as colour", gray(t, 7, 200), 3, []uint8{7, 7, 7, 200, 200, 200}},
		{"16 bits", encoded(t, deep), 0, []uint8{0, 0xAB}},
		{"palette", encoded(t, palette), 0, []uint8{10, 20, 30, 40, 50, 60}},
		{"colour", plain(t, 2, 1, color.NRGBA{1, 2, 3, 255}), 0, []uint8{1, 2, 3, 1, 2, 3}},
		{"transparency is dropped", encoded(t, clear), 0, []uint8{200, 100, 50, 200, 100, 50}},
		{"colour as gray", plain(t, 2, 1, color.NRGBA{255, 0, 0, 255}), 1, []uint8{76, 76}}, // 0.299 · 255
	} {
		t.Run(c.name, func(t *testing.T) {
			f := files{}
			for _, class := range []string{"a", "b"} {
				for i := range 3 {
					f[fmt.Sprintf("%s/%d.png", class, i)] = c.image
				}
			}
			cfg := config(t, f.write(t))
			cfg.Channels, cfg.Validation, cfg.Test = c.channels, 0.3, 0.3
			data := mustOpen(t, cfg)
			if diff := cmp.Diff(c.want, pixels(data.Test.Take(1))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// One image in colour makes all of them be in colour.
func TestMixedColours(t *testing.T) {
	f := folders(t, "", 5)
	f["a/00.png"] = plain(t, 2, 1, color.NRGBA{1, 2, 3, 255})
	cfg := config(t, f.write(t))
	cfg.Validation, cfg.Test = 0.2, 0.2
	if diff := cmp.Diff([]int{1, 2, 3}, mustOpen(t, cfg).Train.Shape()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestSizeTakesTheMiddle(t *testing.T) {
	wide := image.NewGray(image.Rect(0, 0, 12, 4)) // the middle 4x4 is 90, the rest 10
	for i := range wide.Pix {
		wide.Pix[i] = 10
		if x := i % 12; x >= 4 && x < 8 {
			wide.Pix[i] = 90
		}
	}
	// Halves of 40 and 80 become, at 2x2, a column of each with what the interpolation takes from the other.
	halves := image.NewGray(image.Rect(0, 0, 4, 4))
	for i := range halves.Pix {
		halves.Pix[i] = 40
		if i%4 >= 2 {
			halves.Pix[i] = 80
		}
	}
	f := files{}
	for i := range 3 {
		f[fmt.Sprintf("a/%d.png", i)] = encoded(t, wide)
		f[fmt.Sprintf("b/%d.png", i)] = encoded(t, halves)
	}
	cfg := config(t, f.write(t))
	cfg.Size, cfg.Validation, cfg.Test = 2, 0.3, 0.3
	data := mustOpen(t, cfg)
	for i := range data.Test.Len() {
		p := pixels(data.Test)[4*i:][:4]
		switch data.Test.Label(i) {
		case 0:
			if diff := cmp.Diff([]uint8{90, 90, 90, 90}, p); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		case 1: // the triangle over twice the area has weights 3/4, 3/4 and 1/4 inside the image: (1.5·40 + 0.25·80)/1.75 = 45.7
			for k, got := range p {
				if want := []float64{45.7, 74.3}[k%2]; math.Abs(float64(got)-want) > 1 {
					t.Errorf("%v, expected about %v in column %d", p, want, k%2)
				}
			}
		}
	}
	cfg.Size = 0
	_, err := Open(cfg)
	refused(t, err, ErrFormat, "set Config.Size")
}

func TestJPEG(t *testing.T) {
	var b bytes.Buffer
	m := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		m.Set(i%8, i/8, color.RGBA{200, 40, 90, 255})
	}
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	f := files{}
	for i := range 3 {
		f[fmt.Sprintf("a/%d.jpg", i)], f[fmt.Sprintf("b/%d.JPEG", i)] = b.Bytes(), b.Bytes()
	}
	cfg := config(t, f.write(t))
	cfg.Validation, cfg.Test = 0.3, 0.3
	for i, got := range pixels(mustOpen(t, cfg).Train) {
		if want := []float64{200, 40, 90}[i%3]; math.Abs(float64(got)-want) > 3 {
			t.Fatalf("byte %d is %d, expected about %v", i, got, want)
		}
	}
}

func TestUnsafeArchives(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Name: name, Mode: 0o644} }
	for _, c := range []struct {
		name  string
		entry []tar.Header
		want  string
	}{
		{"parent", []tar.Header{reg("../evil.png")}, `"../evil.png"`},
		{"parent in the middle", []tar.Header{reg("a/../../evil.png")}, `"a/../../evil.png"`},
		{"parent for others", []tar.Header{reg(`a\..\..\evil.png`)}, "without .."},
		{"parent directory", []tar.Header{{Name: "../a/", Typeflag: tar.TypeDir}}, "without .."},
		{"absolute", []tar.Header{reg("/etc/evil.png")}, `"/etc/evil.png"`},
		{"no UTF-8", []tar.Header{{Name: "a/\xff.png", Format: tar.FormatGNU}}, "UTF-8"},
		{"symbolic link", []tar.Header{{Name: "a/l.png", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}}, "a symbolic link"},
		{"hard link", []tar.Header{{Name: "a/l.png", Linkname: "a/00.png", Typeflag: tar.TypeLink}}, "a hard link"},
		{"device", []tar.Header{{Name: "a/zero.png", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}}, "a device"},
		{"pipe", []tar.Header{{Name: "a/p.png", Typeflag: tar.TypeFifo}}, "a named pipe"},
		{"duplicate", []tar.Header{reg("x/1.png"), reg("x/1.png")}, `"x/1.png" came before`},
		{"duplicate in disguise", []tar.Header{reg("x/1.png"), reg("./x//1.png")}, `"x/1.png" came before`},
		{"case", []tar.Header{reg("x/1.png"), reg("X/1.PNG")}, `"x/1.png" came before`},
	} {
		t.Run(c.name, func(t *testing.T) {
			content := folders(t, "", 4).tar(t, c.entry...)
			for _, packed := range [][]byte{content, squeeze(t, content)} {
				cfg := config(t, saved(t, "x.tar", packed))
				_, err := Open(cfg)
				refused(t, err, ErrUnsafe, c.want)
				left, err := filepath.Glob(filepath.Join(cfg.CacheDir, "*.decoded*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range left {
					if !strings.HasSuffix(path, ".lock") {
						t.Errorf("%s was written", path)
					}
				}
			}
		})
	}
}

func TestUnsafeDirectories(t *testing.T) {
	outside := folders(t, "", 1).write(t)
	for name, c := range map[string]struct {
		make func(dir string) error
		want string
	}{
		"a linked directory outside": {func(dir string) error { return os.Symlink(filepath.Join(outside, "a"), filepath.Join(dir, "d")) },
			`"d"`},
		"a linked directory outside by ..": {func(dir string) error {
			path, err := filepath.Rel(dir, outside)
			if err != nil {
				return err
			}
			return os.Symlink(path, filepath.Join(dir, "d"))
		}, `"d"`},
		"a linked file outside": {func(dir string) error {
			return os.Symlink(filepath.Join(outside, "a", "00.png"), filepath.Join(dir, "a", "99.png"))
		}, `"a/99.png"`},
		"a linked directory inside": {func(dir string) error { return os.Symlink("a", filepath.Join(dir, "d")) }, "a link to a directory"},
		"a link to itself":          {func(dir string) error { return os.Symlink(".", filepath.Join(dir, "d")) }, "a link to a directory"},
		"a broken link":             {func(dir string) error { return os.Symlink("none.png", filepath.Join(dir, "a", "l.png")) }, `"a/l.png"`},
		"a pipe":                    {func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "a", "p.png"), 0o644) }, `"a/p.png"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folders(t, "", 4).write(t)
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(config(t, dir))
			refused(t, err, ErrUnsafe, c.want)
		})
	}
	// A link to an image inside is that image.
	dir := folders(t, "", 10).write(t)
	if err := os.Symlink("../b/03.png", filepath.Join(dir, "a", "linked.png")); err != nil {
		t.Fatal(err)
	}
	data := mustOpen(t, config(t, dir))
	if got := data.Train.Len() + data.Validation.Len() + data.Test.Len(); got != 31 {
		t.Errorf("%d images, expected 31", got)
	}
}

func TestLimits(t *testing.T) {
	images := folders(t, "", 10)
	packed := images.tar(t)
	bomb := folders(t, "", 4)
	bomb["a/zeros.png"] = make([]byte, 8<<20)
	flat := folders(t, "", 4)
	flat["a/x.png"] = plain(t, 1200, 1000, color.Gray{1}) // 1.2 million pixels in some kilobytes
	for _, c := range []struct {
		name    string
		content []byte
		change  func(*limits, *Config)
		want    string
	}{
		{"entries", packed, func(l *limits, _ *Config) { l.entries = 29 }, "at most 29 entries"},
		{"a file", packed, func(l *limits, _ *Config) { l.file = 20 }, "an image of at most 20 bytes"},
		{"all files", packed, func(_ *limits, c *Config) { c.MaxBytes = 1000 }, "set Config.MaxBytes"},
		{"all files decoded", packed, func(_ *limits, c *Config) { c.MaxBytes, c.Size = 100_000, 200 }, "decoded images of at most 100000 bytes"},
		{"a bomb", squeeze(t, bomb.tar(t)), func(l *limits, _ *Config) { l.slack = 1 << 20 }, "at most 200 bytes out of one"},
		{"a bomb of nothing", squeeze(t, append(packed, make([]byte, 8<<20)...)), func(l *limits, _ *Config) { l.slack = 1 << 20 },
			"at most 200 bytes out of one"},
		{"pixels", packed, func(l *limits, _ *Config) { l.pixels = 1 }, "an image of 1 to 1 pixels"},
		{"a bomb of an image", flat.tar(t), func(l *limits, c *Config) { l.density, c.Size = 16, 2 }, "at most 16 pixels from a byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, lim := config(t, saved(t, "x.tar", c.content)), standard
			c.change(&lim, &cfg)
			_, err := open(cfg, lim)
			refused(t, err, ErrLimit, c.want)
		})
	}
	for _, name := range []string{"entries", "a file", "all files"} { // the same, in a directory
		cfg, lim := config(t, images.write(t)), standard
		switch name {
		case "entries":
			lim.entries = 29
		case "a file":
			lim.file = 20
		default:
			cfg.MaxBytes = 1000
		}
		_, err := open(cfg, lim)
		refused(t, err, ErrLimit, "at most")
	}
}

// A header that claims four billion pixels is refused before anything is allocated for them.
func TestLyingHeader(t *testing.T) {
	f := folders(t, "", 4)
	m := bytes.Clone(f["a/00.png"])
	copy(m[16:], []byte{0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff}) // width and height of the IHDR chunk, at byte 16
	f["a/00.png"] = m
	_, err := Open(config(t, f.write(t)))
	refused(t, err, ErrFormat, `"a/00.png"`) // its checksum is wrong
	f["a/00.png"] = plain(t, 4097, 4097, color.Gray{1})
	_, err = Open(config(t, f.write(t)))
	refused(t, err, ErrLimit, "came 4097x4097")
}

func TestWrongLayouts(t *testing.T) {
	with := func(name string, content []byte) func(files) { return func(f files) { f[name] = content } }
	image := gray(t, 1, 2)
	for _, c := range []struct {
		name   string
		change func(files)
		want   string
	}{
		{"no image at all", func(f files) { clear(f); f["a/x.txt"] = nil }, "PNG or JPEG images in class folders"},
		{"an image beside the classes", with("x.png", image), `"x.png"`},
		{"an image too deep", with("a/more/x.png", image), `"a/more/x.png"`},
		{"another file among the images", with("b/notes.gif", nil), `"b/notes.gif"`},
		{"one class", func(f files) { clear(f); f["a/1.png"] = image }, "at least two classes"},
		{"an empty image", with("a/x.png", nil), `"a/x.png"`},
		{"text as image", with("a/x.png", []byte("<html>")), "it begins like neither"},
		{"an image that ends early", with("a/x.png", image[:len(image)-20]), `"a/x.png"`},
		{"another size", with("a/x.png", gray(t, 1, 2, 3)), "set Config.Size"},
		{"a class without training images", func(f files) {
			for name, content := range maps.Clone(f) {
				f["train/"+name] = content
				delete(f, name)
			}
			f["test/d/x.png"] = image
		}, `"d"`},
		{"folders beside train", func(f files) {
			for name, content := range maps.Clone(f) {
				f["train/"+name], f["extra/"+name] = content, content
				delete(f, name)
			}
		}, `"extra"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := folders(t, "", 10)
			c.change(f)
			_, err := Open(config(t, f.write(t)))
			refused(t, err, ErrFormat, c.want)
		})
	}
	_, err := Open(config(t, folders(t, "", 2).write(t)))
	refused(t, err, ErrFormat, "images for the validation part")
}

func TestNonsenseIsRefused(t *testing.T) {
	dir := folders(t, "", 10).write(t)
	for want, change := range map[string]func(*Config){
		"in Config.Path":      func(c *Config) { c.Path = "" },
		"a Size from 1":       func(c *Config) { c.Size = -1 },
		"a Size from 1 to 40": func(c *Config) { c.Size = math.MaxInt },
		"Channels 1 or 3":     func(c *Config) { c.Channels = 2 },
		"in Validation":       func(c *Config) { c.Validation = math.NaN() },
		"in Test":             func(c *Config) { c.Test = 1 },
		"leave some":          func(c *Config) { c.Validation, c.Test = 0.5, 0.5 },
		"MaxBytes of 1":       func(c *Config) { c.MaxBytes = -1 },
		"Batch of 1":          func(c *Config) { c.Batch = -1 },
	} {
		cfg := config(t, dir)
		change(&cfg)
		_, err := Open(cfg)
		refused(t, err, ErrConfig, want)
	}
	_, err := Open(config(t, filepath.Join(dir, "none")))
	refused(t, err, ErrMissing, "none")
	_, err = Open(config(t, "/dev/null"))
	refused(t, err, ErrUnsafe, "/dev/null")
	_, err = Open(config(t, saved(t, "x.tar", []byte("this is no archive"))))
	refused(t, err, ErrFormat, "a tar archive")
	_, err = Open(config(t, saved(t, "x.tar", nil)))
	refused(t, err, ErrFormat, "x.tar")
}

// Nothing that happens to an archive goes unnoticed, unless no image is touched by it.
func TestTruncationAndFlipsAreNoticed(t *testing.T) {
	plainTar := folders(t, "", 3).tar(t)
	opened := func(content []byte) (string, error) {
		cfg := config(t, saved(t, "x.tar", content))
		cfg.Validation, cfg.Test = 0.3, 0.3
		data, err := Open(cfg)
		if err != nil {
			return "", err
		}
		return data.Train.Digest() + data.Validation.Digest() + data.Test.Digest(), nil
	}
	want, err := opened(plainTar)
	if err != nil {
		t.Fatal(err)
	}
	for name, intact := range map[string][]byte{"tar": plainTar, "tar.gz": squeeze(t, plainTar)} {
		for k := range 64 {
			at := k * len(intact) / 64
			if _, err := opened(intact[:at]); !errors.Is(err, ErrFormat) {
				t.Errorf("%s cut at %d of %d: %v, expected ErrFormat", name, at, len(intact), err)
			}
			flipped := bytes.Clone(intact)
			flipped[at] ^= 0x40
			got, err := opened(flipped)
			var typed *Error
			if err == nil && got != want || err != nil && !errors.As(err, &typed) {
				t.Errorf("%s with a bit of byte %d flipped: %v, other data: %v", name, at, err, got != want)
			}
		}
	}
	_, err = opened(append(bytes.Clone(plainTar), plainTar...))
	refused(t, err, ErrFormat, "nothing after the end")
}

// A broken cache is reported, and the data is what it was.
func TestBrokenCache(t *testing.T) {
	cfg := config(t, folders(t, "", 10).write(t))
	want := mustOpen(t, cfg).Train.Digest()
	stored, err := filepath.Glob(filepath.Join(cfg.CacheDir, "*.decoded"))
	if err != nil || len(stored) != 1 {
		t.Fatalf("%v, %v; expected one file", stored, err)
	}
	content, err := os.ReadFile(stored[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(stored[0], content, 0o644); err != nil {
		t.Fatal(err)
	}
	warnings := 0
	cfg.Warn = func(err error) {
		warnings++
		refused(t, err, ErrFormat, stored[0])
	}
	if got := mustOpen(t, cfg).Train.Digest(); got != want || warnings != 1 {
		t.Errorf("%d warnings, expected 1; other data: %v", warnings, got != want)
	}
}

// What is decoded once is not decoded again: the images could even be gone from the archive's bytes but for their digest.
func TestCacheIsUsed(t *testing.T) {
	content := folders(t, "", 10).tar(t)
	cfg := config(t, saved(t, "x.tar", content))
	want := mustOpen(t, cfg)
	lim := standard
	lim.entries = 1 // reading the archive would fail
	got, err := open(cfg, lim)
	if err != nil {
		t.Fatal(err)
	}
	if got.Train.Digest() != want.Train.Digest() || got.Train.String() != want.Train.String() {
		t.Errorf("%s from the cache, expected %s", got.Train, want.Train)
	}
	cfg.Channels = 3 // another key
	if _, err := open(cfg, lim); !errors.Is(err, ErrLimit) {
		t.Errorf("%v with other channels, expected ErrLimit", err)
	}
}

func TestParallelReturnsTheFirstError(t *testing.T) {
	for range 50 {
		err := parallel(1000, func(i int) error {
			if i >= 700 {
				return fmt.Errorf("%d", i)
			}
			return nil
		})
		if err == nil || err.Error() != "700" {
			t.Fatalf("%v, expected 700", err)
		}
	}
	if err := parallel(0, func(int) error { return io.EOF }); err != nil {
		t.Error(err)
	}
}

func FuzzUntar(f *testing.F) {
	content := folders(f, "", 2).tar(f, tar.Header{Name: "a/", Typeflag: tar.TypeDir})
	f.Add(content)
	f.Add(squeeze(f, content))
	f.Add(content[:1000])
	f.Add(squeeze(f, make([]byte, 1<<20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		lim := standard
		lim.file, lim.bytes, lim.slack = 1<<16, 1<<20, 1<<20
		entries, err := untar("f", bytes.NewReader(data), sha256.New(), lim)
		var typed *Error
		if err != nil && !errors.As(err, &typed) {
			t.Errorf("%v is no *Error", err)
		}
		for _, e := range entries {
			if !filepath.IsLocal(e.name) || int64(len(e.content)) > lim.file {
				t.Errorf("%q with %d bytes came through", e.name, len(e.content))
			}
		}
	})
}
