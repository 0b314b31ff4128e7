package memory

import (
	"errors"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// Sizes whose product overflows to 0 or to the right number are refused, not divided by.
func TestSizesThatOverflow(t *testing.T) {
	for _, dims := range [][3]int{{1 << 32, 1 << 32, 1}, {1 << 31, 1 << 31, 4}, {1 << 62, 4, 1}, {1, 1 << 62, 1 << 62}, {1<<63 - 1, 1<<63 - 1, 2}, {2, 1, 5}} {
		c := numbered(4)
		c.Height, c.Width, c.Channels = dims[0], dims[1], dims[2]
		_, err := New(c, true, 1, 0)
		if !errors.Is(err, fault.ErrFormat) || !strings.Contains(err.Error(), "numbers train") {
			t.Errorf("%v: %v, expected ErrFormat", dims, err)
		}
	}
}
