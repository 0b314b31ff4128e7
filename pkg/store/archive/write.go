package archive

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Write writes an archive of files, sorted by name, without compression. It depends on names and content only: times are zero, modes 0644, owners
// nobody. It writes nothing that Extract would refuse for its names.
//
// Errors: *Error for names, sizes, and a file whose content is not as long as its Size; those of Open and of w.
func Write(w io.Writer, files []File) error {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	names := newTree(unlimited)
	headers := make([][blockSize]byte, len(files))
	for i, f := range files {
		if _, err := names.add(f.Name, false); err != nil {
			return err
		}
		var err error
		if headers[i], err = header(f.Name, f.Size); err != nil {
			return err
		}
	}
	var zeros [2 * blockSize]byte
	for i, f := range files {
		if _, err := w.Write(headers[i][:]); err != nil {
			return err
		}
		if err := copyFile(w, f); err != nil {
			return err
		}
		if _, err := w.Write(zeros[:padding(f.Size)]); err != nil {
			return err
		}
	}
	_, err := w.Write(zeros[:])
	return err
}

// padding is how many bytes fill a file's last block.
func padding(size int64) int64 { return -size & (blockSize - 1) }

func copyFile(w io.Writer, f File) (err error) {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := io.Copy(w, io.LimitReader(r, f.Size))
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	var more [1]byte
	m, err := io.ReadFull(r, more[:])
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	if n < f.Size || m > 0 {
		got := fmt.Sprint(n)
		if m > 0 {
			got = "more"
		}
		return &Error{f.Name, fmt.Sprintf("was expected to have %d bytes and has %s", f.Size, got), "let nobody write to it meanwhile"}
	}
	return nil
}
