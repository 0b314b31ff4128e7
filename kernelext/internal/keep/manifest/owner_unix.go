//go:build unix

package manifest

import (
	"io/fs"
	"os"
	"syscall"
)

// mine tells whether a file belongs to the user that this process runs as.
func mine(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid()
}
