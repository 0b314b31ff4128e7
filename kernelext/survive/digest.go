package survive

import (
	"encoding/binary"
	"math/bits"
)

// digest is a hash of 128 bits that runs at the speed of memory: unchanged values have to be recognised in each cell. It finds accidents, such as
// a torn file or a value that changed; it is no defence against whoever can write the user's files.
type digest struct {
	a, b   uint64
	length uint64
	rest   [32]byte // what does not fill a block yet
	n      int
}

const (
	k0 = 0xa0761d6478bd642f
	k1 = 0xe7037ed1a0b428db
	k2 = 0x8ebc6af09c88c6e3
	k3 = 0x589965cc75374cc3
)

func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

func (d *digest) write(data []byte) {
	d.length += uint64(len(data))
	if d.n > 0 {
		n := copy(d.rest[d.n:], data)
		d.n, data = d.n+n, data[n:]
		if d.n < len(d.rest) {
			return
		}
		d.blocks(d.rest[:])
		d.n = 0
	}
	whole := len(data) &^ 31
	d.blocks(data[:whole])
	d.n = copy(d.rest[:], data[whole:])
}

func (d *digest) blocks(data []byte) {
	a, b := d.a, d.b
	for ; len(data) >= 32; data = data[32:] {
		a = mix(binary.LittleEndian.Uint64(data)^k0, binary.LittleEndian.Uint64(data[8:])^a) + k2
		b = mix(binary.LittleEndian.Uint64(data[16:])^k1, binary.LittleEndian.Uint64(data[24:])^b) + k3
	}
	d.a, d.b = a, b
}

// sum ends the digest and returns it in hexadecimal digits.
func (d *digest) sum() string {
	clear(d.rest[d.n:])
	d.blocks(d.rest[:])
	x := mix(d.a^k2, d.b^d.length^k3)
	y := mix(d.b^k0, bits.RotateLeft64(d.a, 29)^d.length^k1)
	const digits = "0123456789abcdef"
	text := make([]byte, 0, 32)
	for _, word := range []uint64{x, y} {
		for shift := 60; shift >= 0; shift -= 4 {
			text = append(text, digits[word>>shift&15])
		}
	}
	return string(text)
}
