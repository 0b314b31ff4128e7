package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/internal/durable"
)

// failing returns an FS whose steps fail from number n on, only that one where once is set, and a count of the steps.
func failing(n int, once bool, err error) (durable.FS, *int) {
	step := 0
	return durable.FS{Before: func(op durable.Op, path string) error {
		step++
		if step == n || step > n && !once {
			return err
		}
		return nil
	}}, &step
}

// Each single step of unpacking fails once, as on a full disk: the error says why, and nothing is left.
func TestAllOrNothing(t *testing.T) {
	data := packed(t, file("a", "1"), file("d/b", strings.Repeat("2", 300<<10)), file("d/e/c", "3"))
	fs, steps := failing(0, true, nil)
	root, _ := within(t)
	if _, err := extract(fs, bytes.NewReader(data), root, Limits{}); err != nil {
		t.Fatal(err)
	}
	total := *steps
	if total < 15 {
		t.Fatalf("%d steps: the test sees too few", total)
	}
	for n := 1; n <= total; n++ {
		root, above := within(t)
		fs, _ := failing(n, true, syscall.ENOSPC)
		names, err := extract(fs, bytes.NewReader(data), root, Limits{})
		var at *os.PathError
		if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &at) || names != nil {
			t.Errorf("step %d: want ENOSPC with its path, got %v, %v", n, names, err)
		}
		if diff := cmp.Diff(untouched, found(t, above)); diff != "" {
			t.Errorf("step %d: left behind, -want +got:\n%s", n, diff)
		}
	}
}

// Where undoing fails too, the error says that something is left.
func TestWhatCanNotBeUndoneIsSaid(t *testing.T) {
	data := packed(t, file("a", "1"), file("b", "2"))
	root, above := within(t)
	fs := durable.FS{Before: func(op durable.Op, path string) error {
		if path == "b" || op == durable.OpRemove {
			return syscall.EIO
		}
		return nil
	}}
	_, err := extract(fs, bytes.NewReader(data), root, Limits{})
	if err == nil || !strings.Contains(err.Error(), "still there") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(map[string]string{"canary": "sings", "root/": "", "root/a": "1"}, found(t, above)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWhatIsThereStays(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) error
		entry   string
	}{
		"a file":                         {func(dir string) error { return os.WriteFile(filepath.Join(dir, "z"), []byte("old"), 0o600) }, "z"},
		"a file in place of a directory": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "z"), []byte("old"), 0o600) }, "z/f"},
		"a directory in place of a file": {func(dir string) error { return os.Mkdir(filepath.Join(dir, "z"), 0o755) }, "z"},
		"a link to a file outside":       {func(dir string) error { return os.Symlink("../canary", filepath.Join(dir, "z")) }, "z"},
		"a link to a directory outside":  {func(dir string) error { return os.Symlink("..", filepath.Join(dir, "z")) }, "z/canary"},
		"a link to a directory inside": {func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "in"), 0o755), os.Symlink("in", filepath.Join(dir, "z")))
		}, "z/f"},
		"a link to nothing":                {func(dir string) error { return os.Symlink("nothing", filepath.Join(dir, "z")) }, "z"},
		"a link to nothing as a directory": {func(dir string) error { return os.Symlink("nothing", filepath.Join(dir, "z")) }, "z/f"},
	} {
		t.Run(name, func(t *testing.T) {
			root, above := within(t)
			if err := c.prepare(root.Name()); err != nil {
				t.Fatal(err)
			}
			before := listing(t, above)
			_, err := Extract(bytes.NewReader(packed(t, file("a/b", "new"), file(c.entry, "new"))), root, Limits{})
			var own *Error
			if !errors.As(err, &own) {
				t.Errorf("want an *Error, got %v", err)
			}
			if diff := cmp.Diff(before, listing(t, above)); diff != "" {
				t.Errorf("changed, -want +got:\n%s", diff)
			}
		})
	}
}

// listing is what is below a directory, links by where they lead.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.Type()&os.ModeSymlink != 0:
			all[path], err = os.Readlink(path)
		case d.IsDir():
			all[path] = "/"
		default:
			var content []byte
			content, err = os.ReadFile(path)
			all[path] = string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Cut at each of 64 offsets, an archive is refused; with a bit flipped there it is refused, or gives what it gave: the time in the header of gzip says nothing.
func TestDamage(t *testing.T) {
	want := map[string]string{"a": strings.Repeat("some text ", 300), "d/": "", "d/b": "2"}
	whole := compressed(t, packed(t, file("a", want["a"]), file("d/b", want["d/b"])))
	try := func(data []byte) (map[string]string, error) {
		root, _ := within(t)
		_, err := Extract(bytes.NewReader(data), root, Limits{})
		return found(t, root.Name()), err
	}
	for i := range 64 {
		at := i * len(whole) / 64
		got, err := try(whole[:at])
		var own *Error
		if !errors.As(err, &own) || len(got) > 0 {
			t.Errorf("cut at %d: %v and %d files", at, err, len(got))
		}
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << (i % 8)
		got, err = try(flipped)
		switch {
		case err == nil && !cmp.Equal(want, got):
			t.Errorf("flipped at %d: silently something else", at)
		case err != nil && (!errors.As(err, &own) || len(got) > 0):
			t.Errorf("flipped at %d: %v and %d files", at, err, len(got))
		}
	}
}

func TestErrorsOfTheReader(t *testing.T) {
	data := packed(t, file("a", "1"))
	for name, whole := range map[string][]byte{"tar": data, "tar.gz": compressed(t, data)} {
		for _, at := range []int{0, 1, len(whole) / 2, len(whole)} {
			root, above := within(t)
			_, err := Extract(io.MultiReader(bytes.NewReader(whole[:at]), iotest.ErrReader(syscall.EIO)), root, Limits{})
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%s, at %d: want EIO, got %v", name, at, err)
			}
			if diff := cmp.Diff(untouched, found(t, above)); diff != "" {
				t.Errorf("%s, at %d: left behind, -want +got:\n%s", name, at, diff)
			}
		}
		root, _ := within(t)
		if _, err := Extract(iotest.OneByteReader(bytes.NewReader(whole)), root, Limits{}); err != nil {
			t.Errorf("%s, byte by byte: %v", name, err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	short := file("a", "12")
	short.Size = 3
	grown := file("a", "12")
	grown.Size = 1
	huge := file("a", "")
	huge.Size = maxSize + 1
	negative := file("a", "")
	negative.Size = -1
	for name, c := range map[string]struct {
		files []File
		want  string
	}{
		"parent":           {[]File{file("../a", "")}, `the part ".."`},
		"twice":            {[]File{file("a", ""), file("a", "")}, "twice"},
		"case":             {[]File{file("a", ""), file("A", "")}, "upper and lower case"},
		"file, directory":  {[]File{file("a", ""), file("a/b", "")}, "both"},
		"name of 4 KiB":    {[]File{file(strings.Repeat("n", 4096), "")}, "4096 bytes"},
		"long last part":   {[]File{file("d/"+strings.Repeat("n", 101), "")}, "last part"},
		"long first parts": {[]File{file(strings.Repeat("d", 156)+"/"+strings.Repeat("n", 99), "")}, "parted"},
		"shorter":          {[]File{short}, "3 bytes and has 2"},
		"longer":           {[]File{grown}, "1 bytes and has more"},
		"too large":        {[]File{huge}, "at most"},
		"negative":         {[]File{negative}, "-1 bytes"},
	} {
		var own *Error
		if err := Write(io.Discard, c.files); !errors.As(err, &own) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want an *Error with %q, got %v", name, c.want, err)
		}
	}
	gone := File{"a", 1, func() (io.ReadCloser, error) { return nil, os.ErrNotExist }}
	if err := Write(io.Discard, []File{gone}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("want the error of Open, got %v", err)
	}
}

// A directory is there whole or as it was, wherever unpacking fails; a program that is killed leaves hidden litter only.
func TestNewDirectoryIsWholeOrNotThere(t *testing.T) {
	data := packed(t, file("a", "1"), file("d/b", "2"))
	for _, once := range []bool{true, false} {
		for n := 1; ; n++ {
			above := t.TempDir()
			dir := filepath.Join(above, "new")
			fs, steps := failing(n, once, syscall.EIO)
			err := extractNew(fs, bytes.NewReader(data), dir, Limits{}, nil)
			if *steps < n {
				if err != nil || n < 15 {
					t.Fatalf("after %d steps: %v", n, err)
				}
				break
			}
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("step %d: want EIO, got %v", n, err)
			}
			for name := range found(t, above) {
				if !strings.HasPrefix(name, ".unpacking-") && !strings.HasPrefix(name, "new") {
					t.Errorf("step %d: %s is left", n, name)
				}
			}
			if _, err := os.Stat(dir); err == nil {
				if diff := cmp.Diff(map[string]string{"a": "1", "d/": "", "d/b": "2"}, found(t, dir)); diff != "" {
					t.Errorf("step %d, -want +got:\n%s", n, diff)
				}
			}
		}
	}
}

func TestNewDirectory(t *testing.T) {
	data := packed(t, file("a", "1"))
	no := errors.New("no")
	for name, c := range map[string]struct {
		prepare func(dir string) error
		check   func(root *os.Root, names []string) error
		want    string
	}{
		"new":         {func(dir string) error { return nil }, nil, ""},
		"deep":        {func(dir string) error { return os.Remove(filepath.Dir(dir)) }, nil, ""},
		"empty":       {func(dir string) error { return os.Mkdir(dir, 0o755) }, nil, ""},
		"not empty":   {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "x"), 0o755) }, nil, "not empty"},
		"a file":      {func(dir string) error { return os.WriteFile(dir, nil, 0o644) }, nil, "no directory"},
		"a link":      {func(dir string) error { return os.Symlink(".", dir) }, nil, "no directory"},
		"refused":     {func(dir string) error { return nil }, func(*os.Root, []string) error { return no }, "no"},
		"empty, kept": {func(dir string) error { return os.Mkdir(dir, 0o755) }, func(*os.Root, []string) error { return no }, "no"},
	} {
		t.Run(name, func(t *testing.T) {
			above := t.TempDir()
			dir := filepath.Join(above, "in", "new")
			if err := errors.Join(os.Mkdir(filepath.Join(above, "in"), 0o755), c.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			before := listing(t, above)
			err := ExtractNew(bytes.NewReader(data), dir, Limits{}, c.check)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("want an error with %q, got %v", c.want, err)
				}
				if diff := cmp.Diff(before, listing(t, above)); diff != "" {
					t.Errorf("changed, -want +got:\n%s", diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{"in/": "", "in/new/": "", "in/new/a": "1"}, found(t, above)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Who made the directory for nobody else to see has it so.
func TestNewDirectoryKeepsItsMode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ExtractNew(bytes.NewReader(packed(t, file("a", "1"))), dir, Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want that of before, 0700", info.Mode(), err)
	}
}

// A file of an archive is the new one or the old one, wherever writing fails.
func TestFileIsWholeOrAsItWas(t *testing.T) {
	old, files := []byte("old"), []File{file("a", "1")}
	for n := 1; ; n++ {
		dir := t.TempDir()
		path := filepath.Join(dir, "x.tar.gz")
		if err := os.WriteFile(path, old, 0o644); err != nil {
			t.Fatal(err)
		}
		fs, steps := failing(n, false, syscall.ENOSPC)
		err := writeFile(fs, path, files, nil)
		if *steps < n {
			if err != nil || n < 7 {
				t.Fatalf("after %d steps: %v", n, err)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("step %d: want ENOSPC, got %v", n, err)
		}
		got, err := os.ReadFile(path)
		if want := compressed(t, packed(t, files...)); err != nil || !bytes.Equal(got, old) && !bytes.Equal(got, want) {
			t.Errorf("step %d: %d bytes are neither the old nor the new file, %v", n, len(got), err)
		}
	}
}

// What compresses so well that Extract would take it for a bomb is compressed less.
func TestFileThatCompressesTooWell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar.gz")
	zeros := strings.Repeat("\x00", 4<<20)
	checks := 0
	check := func(path string) error {
		checks++
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return ExtractNew(f, filepath.Join(filepath.Dir(path), "check"), Limits{}, nil)
	}
	if err := WriteFile(path, []File{file("masks", zeros)}, check); err != nil || checks != 2 {
		t.Fatalf("after %d checks: %v", checks, err)
	}
	if err := check(path); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 2 { // the file and what check left
		t.Errorf("want nothing else left, got %v, %v", entries, err)
	}
	no := &Error{"", "no", "never"}
	refused := filepath.Join(t.TempDir(), "y.tar.gz")
	if err := WriteFile(refused, []File{file("a", "1")}, func(string) error { return no }); !errors.Is(err, no) {
		t.Errorf("want the error of check, got %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(refused)); err != nil || len(entries) != 0 {
		t.Errorf("want nothing left, got %v, %v", entries, err)
	}
}
