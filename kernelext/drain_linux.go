package kernelext

import (
	"time"

	"golang.org/x/sys/unix"
)

// drainStandardOutput waits, for a tenth of a second at most, until the reader at the other end of standard output and standard error
// has taken what was written to them. It does nothing where they are not pipes.
func drainStandardOutput() {
	deadline := time.Now().Add(100 * time.Millisecond)
	for _, fd := range []int{1, 2} {
		for time.Now().Before(deadline) {
			if unread, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || unread == 0 {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}
