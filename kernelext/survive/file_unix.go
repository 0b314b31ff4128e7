//go:build unix

package survive

import (
	"errors"
	"os"
	"syscall"
)

// readFile returns a file's content without a copy of it, for as long as release is not called.
func readFile(path string) (data []byte, release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() == 0) {
		err = errors.New("it is no file of values")
	}
	if err == nil {
		data, err = syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	return data, func() { _ = syscall.Munmap(data) }, nil // nothing refers to it any more
}
