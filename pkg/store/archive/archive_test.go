package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// file is a File that is in memory.
func file(name, content string) File {
	return File{name, int64(len(content)), func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
}

// packed returns an archive of files.
func packed(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compressed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// raw returns a header of any name and type, with the right checksum, after change has been at it.
func raw(name string, kind byte, size int64, change func(h []byte)) []byte {
	block, err := header("x", size)
	if err != nil {
		panic(err)
	}
	block[0] = 0
	copy(block[:nameField], name)
	block[atType] = kind
	if change != nil {
		change(block[:])
	}
	copy(block[atChecksum:], fmt.Sprintf("%06o\x00 ", checksum(&block)))
	return block[:]
}

// byHand returns an archive of parts, with its end.
func byHand(parts ...[]byte) []byte {
	return append(bytes.Join(parts, nil), make([]byte, 2*blockSize)...)
}

// within opens a directory that has a canary beside it, and returns the directory above.
func within(t testing.TB) (*os.Root, string) {
	t.Helper()
	above := t.TempDir()
	if err := os.WriteFile(filepath.Join(above, "canary"), []byte("sings"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(above, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Join(above, "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, above
}

// found returns what is below a directory: content by name, directories with a slash.
func found(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			all[name+"/"] = ""
			return nil
		}
		content, err := os.ReadFile(path)
		all[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var untouched = map[string]string{"canary": "sings", "root/": ""}

func TestWrittenIsRead(t *testing.T) {
	long := strings.Repeat("d", 100) + "/" + strings.Repeat("f", 100)
	data := packed(t, file("b/two", strings.Repeat("2", 513)), file("b/ä.json", ""), file("a", "one"), file(long, "far"), file("b/c/three", strings.Repeat("3", 512)))
	for name, archive := range map[string][]byte{"tar": data, "tar.gz": compressed(t, data), "padded": append(bytes.Clone(data), make([]byte, 8*blockSize)...)} {
		t.Run(name, func(t *testing.T) {
			root, above := within(t)
			names, err := Extract(bytes.NewReader(archive), root, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"a", "b/c/three", "b/two", "b/ä.json", long}, names); diff != "" {
				t.Errorf("names, -want +got:\n%s", diff)
			}
			want := map[string]string{
				"a": "one", "b/": "", "b/c/": "", "b/c/three": strings.Repeat("3", 512), "b/two": strings.Repeat("2", 513), "b/ä.json": "", long: "far", long[:100] + "/": "",
			}
			if diff := cmp.Diff(want, found(t, filepath.Join(above, "root"))); diff != "" {
				t.Errorf("files, -want +got:\n%s", diff)
			}
		})
	}
}

func TestBytesAreAFunctionOfContent(t *testing.T) {
	one := packed(t, file("b", "2"), file("a", "1"))
	if two := packed(t, file("a", "1"), file("b", "2")); !bytes.Equal(one, two) {
		t.Error("another order of files gave other bytes")
	}
	if other := packed(t, file("a", "1"), file("b", "3")); bytes.Equal(one, other) {
		t.Error("another content gave the same bytes")
	}
}

// What is written is what the standard library reads, and with nothing in it that differs between machines.
func TestStandardLibraryReadsIt(t *testing.T) {
	long := strings.Repeat("d", 90) + "/" + strings.Repeat("e", 60) + "/" + strings.Repeat("f", 99)
	r := tar.NewReader(bytes.NewReader(packed(t, file("a/b", "content"), file(long, "far"))))
	for _, want := range []string{"a/b", long} {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != want || h.Mode != 0o644 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 || h.Format != tar.FormatUSTAR {
			t.Errorf("want %q without owner and time, got %+v", want, h)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// What others write as ustar is read.
func TestStandardLibraryWritesIt(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o777, Uname: "somebody"}, {Typeflag: tar.TypeReg, Name: "d/f", Size: 3, Mode: 0o4755}, {Typeflag: tar.TypeDir, Name: "empty/"},
	} {
		h.Format = tar.FormatUSTAR
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("abc")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	root, above := within(t)
	if _, err := Extract(&b, root, Limits{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"d/": "", "d/f": "abc", "empty/": ""}, found(t, filepath.Join(above, "root"))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	info, err := root.Stat("d/f")
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644 whatever the header says", info.Mode(), err)
	}
}

func TestHostileArchives(t *testing.T) {
	content := append([]byte("evil"), make([]byte, blockSize-4)...)
	one := func(name string) []byte { return byHand(raw(name, '0', 4, nil), content) }
	two := func(a, b string) []byte { return byHand(raw(a, '0', 4, nil), content, raw(b, '0', 4, nil), content) }
	typed := func(kind byte) []byte {
		return byHand(raw("link", kind, 0, func(h []byte) { copy(h[atLink:], "../canary") }))
	}
	pax := func(records string) []byte {
		body := append([]byte(records), make([]byte, padding(int64(len(records))))...)
		return byHand(raw("PaxHeaders.0/a", 'x', int64(len(records)), nil), body, raw("a", '0', 4, nil), content)
	}
	good := packed(t, file("a", "1"), file("b", "2"))
	z := compressed(t, good)
	flip := func(data []byte, at int) []byte {
		data = bytes.Clone(data)
		data[at] ^= 1
		return data
	}
	for name, c := range map[string]struct {
		data   []byte
		limits Limits
		want   string
	}{
		"parent":                {one("../canary"), Limits{}, `the part ".."`},
		"parent inside":         {one("a/../../canary"), Limits{}, `the part ".."`},
		"parent as a directory": {byHand(raw("../d/", '5', 0, nil)), Limits{}, `the part ".."`},
		"absolute":              {one("/etc/passwd"), Limits{}, "absolute"},
		"drive":                 {one("C:/boot.ini"), Limits{}, "Windows"},
		"drive, relative":       {one("C:boot.ini"), Limits{}, "Windows"},
		"UNC":                   {one("//host/share"), Limits{}, "absolute"},
		"UNC, backslashes":      {one(`\\host\share`), Limits{}, "backslash"},
		"backslash":             {one(`..\canary`), Limits{}, "backslash"},
		"no name":               {one(""), Limits{}, "without a name"},
		"no name, prefix":       {byHand(raw("", '0', 4, func(h []byte) { copy(h[atPrefix:], "a") }), content), Limits{}, "empty part"},
		"prefix with parent":    {byHand(raw("canary", '0', 4, func(h []byte) { copy(h[atPrefix:], "..") }), content), Limits{}, `the part ".."`},
		"empty part":            {one("a//b"), Limits{}, "empty part"},
		"file with slash":       {one("a/"), Limits{}, "empty part"},
		"dot":                   {one("./a"), Limits{}, `the part "."`},
		"NUL inside":            {one("a\x00b"), Limits{}, "after a NUL"},
		"newline":               {one("a\nb"), Limits{}, "U+000A"},
		"escape sequence":       {one("a\x1b[2Jb"), Limits{}, "U+001B"},
		"delete":                {one("a\x7fb"), Limits{}, "U+007F"},
		"right to left":         {one("a\u202egpj.exe"), Limits{}, "U+202E"},
		"no UTF-8":              {one("a\xff"), Limits{}, "no UTF-8"},
		"device of Windows":     {one("a/nul.txt"), Limits{}, "device"},
		"LPT":                   {one("lpt1"), Limits{}, "device"},
		"dot at the end":        {one("a."), Limits{}, "whose end"},
		"hard link":             {typed('1'), Limits{}, "hard link"},
		"symbolic link":         {typed('2'), Limits{}, "symbolic link"},
		"character device":      {typed('3'), Limits{}, "character device"},
		"block device":          {typed('4'), Limits{}, "block device"},
		"fifo":                  {typed('6'), Limits{}, "fifo"},
		"contiguous":            {typed('7'), Limits{}, "contiguous"},
		"sparse":                {typed('S'), Limits{}, "sparse"},
		"unknown type":          {typed('Z'), Limits{}, "unknown type"},
		"old type":              {typed(0), Limits{}, "older"},
		"file with a link":      {byHand(raw("a", '0', 4, func(h []byte) { copy(h[atLink:], "../canary") }), content), Limits{}, "more in it"},
		"hidden fields":         {byHand(raw("a", '0', 4, func(h []byte) { h[508] = 't' }), content), Limits{}, "more in it"},
		"PAX, other name":       {pax("20 path=../canary00\n"), Limits{}, "PAX"},
		"PAX, other size":       {pax("13 size=1024\n"), Limits{}, "PAX"},
		"PAX for all":           {byHand(raw("g", 'g', 0, nil), raw("a", '0', 4, nil), content), Limits{}, "PAX"},
		"PAX sparse":            {pax("22 GNU.sparse.major=1\n"), Limits{}, "PAX"},
		"name of 4 KiB":         {byHand(append(raw("././@LongLink", 'L', 4096, nil), bytes.Repeat([]byte("n"), 4096)...), raw("a", '0', 4, nil), content), Limits{}, "long name (GNU)"},
		"format of GNU":         {byHand(raw("a", '0', 4, func(h []byte) { copy(h[atMagic:], "ustar  \x00") }), content), Limits{}, "GNU tar"},
		"twice":                 {two("a", "a"), Limits{}, "twice"},
		"directory twice":       {byHand(raw("d/", '5', 0, nil), raw("d/", '5', 0, nil)), Limits{}, "twice"},
		"case":                  {two("read.me", "READ.ME"), Limits{}, "upper and lower case"},
		"case, not ASCII":       {two("ä", "Ä"), Limits{}, "upper and lower case"},
		"case, Kelvin":          {two("k", "\u212a"), Limits{}, "upper and lower case"},
		"case of a directory":   {two("d/a", "D/b"), Limits{}, "upper and lower case"},
		"file then directory":   {two("a", "a/b"), Limits{}, "both a file and a directory"},
		"directory then file":   {two("a/b", "a"), Limits{}, "both a file and a directory"},
		"directory with bytes":  {byHand(raw("d/", '5', 4, nil), content), Limits{}, "directory that has content"},
		"too many":              {two("a", "b"), Limits{Files: 1}, "more than 1 files"},
		"too many directories":  {one("a/b/c/d/e"), Limits{Files: 4}, "more than 4 files"},
		"too large":             {one("a"), Limits{FileBytes: 3}, "4 bytes, at most 3"},
		"too large in all":      {two("a", "b"), Limits{Bytes: 7}, "more than 7 bytes"},
		"larger than it is":     {append(raw("a", '0', 1<<20, nil), content...), Limits{}, "cut off"},
		"larger than all disks": {append(raw("a", '0', maxSize, nil), content...), Limits{}, "at most 2147483648"},
		"smaller than it is":    {byHand(raw("a", '0', 0, nil), content), Limits{}, "was expected"},
		"size of base 256":      {byHand(raw("a", '0', 4, func(h []byte) { h[atSize], h[atSize+11] = 0x80, 4 }), content), Limits{}, "no octal"},
		"size below zero":       {byHand(raw("a", '0', 4, func(h []byte) { copy(h[atSize:], "-0000000004\x00") }), content), Limits{}, "no octal"},
		"no size":               {byHand(raw("a", '0', 4, func(h []byte) { copy(h[atSize:], make([]byte, 12)) }), content), Limits{}, "no octal"},
		"time is no number":     {byHand(raw("a", '0', 4, func(h []byte) { h[atTime+11] = '\b' }), content), Limits{}, "time, mode or owner"},
		"bytes after content":   {byHand(raw("a", '0', 4, nil), append([]byte("evil and more"), make([]byte, blockSize-13)...)), Limits{}, "belong to no file"},
		"checksum":              {flip(good, 0), Limits{}, "checksum"},
		"empty":                 {nil, Limits{}, "cut off"},
		"no archive":            {bytes.Repeat([]byte("text "), 200), Limits{}, "no tar archive"},
		"cut in a header":       {good[:700*2], Limits{}, "cut off"},
		"cut in content":        {good[:blockSize+10], Limits{}, "cut off"},
		"cut before the end":    {good[:4*blockSize], Limits{}, "cut off"},
		"cut in the end":        {good[:5*blockSize], Limits{}, "cut off"},
		"garbage after the end": {append(bytes.Clone(good), "garbage"...), Limits{}, "after its end"},
		"archive after the end": {append(bytes.Clone(good), good...), Limits{}, "after its end"},
		"zeros after the end":   {append(bytes.Clone(good), make([]byte, 1<<20)...), Limits{}, "after its end"},
		"gzip: cut":             {z[:len(z)-9], Limits{}, "cut off"},
		"gzip: cut checksum":    {z[:len(z)-1], Limits{}, "cut off"},
		"gzip: flip":            {flip(z, len(z)-6), Limits{}, "damaged"},
		"gzip: header only":     {z[:2], Limits{}, "cut off"},
		"gzip: garbage after":   {append(bytes.Clone(z), "garbage"...), Limits{}, "followed by something"},
		"gzip: zeros after":     {append(bytes.Clone(z), 0), Limits{}, "followed by something"},
		"gzip: second member":   {append(bytes.Clone(z), compressed(t, good)...), Limits{}, "followed by something"},
		"gzip: split members":   {append(compressed(t, good[:blockSize]), compressed(t, good[blockSize:])...), Limits{}, "cut off"},
		"gzip in gzip":          {compressed(t, z), Limits{}, "cut off"},
		"gzip: bomb of 1000":    {compressed(t, byHand(raw("a", '0', 8<<20, nil), make([]byte, 8<<20))), Limits{}, "200 times its size"},
		"gzip: bomb of headers": {compressed(t, make([]byte, 8<<20)), Limits{}, "after its end"},
		"limit below zero":      {good, Limits{Ratio: -1}, "Limits.Ratio is -1"},
	} {
		t.Run(name, func(t *testing.T) {
			root, above := within(t)
			names, err := Extract(bytes.NewReader(c.data), root, c.limits)
			var own *Error
			if !errors.As(err, &own) || !strings.Contains(err.Error(), c.want) || names != nil {
				t.Errorf("want an *Error with %q, got %v, %v", c.want, names, err)
			}
			if own != nil && own.Remedy == "" {
				t.Errorf("%v: it has no remedy", err)
			}
			if diff := cmp.Diff(untouched, found(t, above)); diff != "" {
				t.Errorf("left behind, -want +got:\n%s", diff)
			}
		})
	}
}

// A million entries are refused at the first that is too many, and what was written of them is gone.
func TestMillionEntries(t *testing.T) {
	root, above := within(t)
	r, w := io.Pipe()
	written := 0
	go func() {
		for ; written < 1_000_000; written++ {
			if _, err := w.Write(raw(fmt.Sprint(written), '0', 0, nil)); err != nil {
				return
			}
		}
		w.Close()
	}()
	_, err := Extract(r, root, Limits{Files: 200})
	r.CloseWithError(io.ErrClosedPipe)
	var own *Error
	if !errors.As(err, &own) || !strings.Contains(err.Error(), "more than 200 files") {
		t.Errorf("want an *Error, got %v", err)
	}
	if diff := cmp.Diff(untouched, found(t, above)); diff != "" {
		t.Errorf("left behind, -want +got:\n%s", diff)
	}
}

// Not more is written of a bomb than the limits allow, and none of it is held in memory.
func TestBombsStopAtTheLimits(t *testing.T) {
	zeros := func(n int64) *bytes.Buffer {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(raw("a", '0', n, nil))
		if err == nil {
			_, err = io.CopyN(z, endless{}, n+2*blockSize)
		}
		if err = errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	for name, c := range map[string]struct {
		size   int64
		limits Limits
		most   int64 // bytes on disk
	}{
		"ratio":     {64 << 20, Limits{}, free + 200*(70<<10)},
		"bytes":     {64 << 20, Limits{Bytes: 1 << 20, Ratio: 2000}, 0},
		"low ratio": {64 << 20, Limits{Ratio: 1}, free + 70<<10},
	} {
		t.Run(name, func(t *testing.T) {
			root, above := within(t)
			bomb := zeros(c.size)
			if bomb.Len() > 70<<10 {
				t.Fatalf("the bomb has %d bytes, the bounds are for 70 KiB", bomb.Len())
			}
			most, removed := int64(0), false
			before := func(op durable.Op, path string) error {
				if op == durable.OpRemove {
					removed = true
					info, err := root.Stat("a")
					if err != nil {
						t.Error(err)
						return nil
					}
					most = max(most, info.Size())
				}
				return nil
			}
			var start, end runtime.MemStats
			runtime.ReadMemStats(&start)
			if _, err := extract(durable.FS{Before: before}, bomb, root, c.limits); err == nil {
				t.Error("a bomb was unpacked")
			}
			if runtime.ReadMemStats(&end); end.TotalAlloc-start.TotalAlloc > 2<<20 {
				t.Errorf("%d bytes were allocated", end.TotalAlloc-start.TotalAlloc)
			}
			if most > c.most || removed != (c.most > 0) {
				t.Errorf("%d bytes were written (%t), at most %d expected", most, removed, c.most)
			}
			if diff := cmp.Diff(untouched, found(t, above)); diff != "" {
				t.Errorf("left behind, -want +got:\n%s", diff)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }
