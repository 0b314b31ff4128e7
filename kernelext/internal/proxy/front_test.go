package proxy

import (
	"net"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
)

// Each of the five sockets may be taken. The kernel says so, and closes those that it could open.
func TestSocketTaken(t *testing.T) {
	ignore := func(*wire.Message) {}
	for port := 1; port <= 5; port++ {
		c := localConnection(t)
		taken, err := net.Listen(c.Address(port))
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		_, address := c.Address(port)
		f, err := listenFront(c, &logger{out: &lockedBuffer{}}, ignore, ignore, ignore)
		if f != nil || err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "start the kernel anew") {
			t.Fatalf("socket %d taken: got %v, %v; want an error that names %s and a remedy", port, f, err, address)
		}
		for other := 1; other <= 5; other++ {
			if other == port {
				continue
			}
			l, err := net.Listen(c.Address(other))
			if err != nil {
				t.Fatalf("socket %d taken: socket %d is left open: %v", port, other, err)
			}
			defer l.Close()
		}
	}
}
