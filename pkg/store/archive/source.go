package archive

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// free is how many bytes may be unpacked from next to nothing: small files of zeros are no attack.
const free = 1 << 20

// source is an archive's bytes, unpacked if they are compressed.
type source struct {
	io.Reader
	raw *bufio.Reader
}

// open looks at the first bytes to see whether an archive is compressed.
func open(r io.Reader, ratio int64) (*source, error) {
	raw := bufio.NewReader(r)
	first, err := raw.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, damage(err)
	}
	if string(first) != "\x1f\x8b" {
		return &source{raw, raw}, nil
	}
	counted := &counter{r: raw}
	z, err := gzip.NewReader(counted)
	if err != nil {
		return nil, damage(err)
	}
	z.Multistream(false)
	return &source{&guard{z: z, packed: counted, ratio: ratio}, raw}, nil
}

// end reads to the end, where only zeros may come, and sees that nothing comes after it.
func (s *source) end() error {
	buffer := make([]byte, blockSize)
	for n := 0; ; n += blockSize {
		switch got, err := io.ReadFull(s, buffer); {
		case errors.Is(err, io.EOF):
			if n == 0 {
				return damage(io.ErrUnexpectedEOF) // the second of the two blocks is missing
			}
			if _, err := s.raw.ReadByte(); err == nil {
				return &Error{"", "is followed by something else", "get it again: what comes after its end belongs to no file"}
			} else if !errors.Is(err, io.EOF) {
				return damage(err)
			}
			return nil
		case !zero(buffer[:got]) || n >= maxPadding:
			return &Error{"", "goes on after its end", "get it again: what comes after its end belongs to no file"}
		case err != nil:
			return damage(err)
		}
	}
}

// counter counts the bytes that are taken, one by one where they are taken so: a buffer between would count what nobody has seen.
type counter struct {
	r *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// guard stops where much more is unpacked than read.
type guard struct {
	z      io.Reader
	packed *counter
	ratio  int64
	n      int64
}

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.z.Read(p)
	g.n += int64(n)
	if g.n > free && (g.n-free)/g.ratio > g.packed.n {
		return 0, &Error{"", fmt.Sprintf("unpacks to more than %d times its size", g.ratio), "raise Limits.Ratio if that is as it should be"}
	}
	return n, err
}

// damage says what an error in reading an archive means.
func damage(err error) error {
	var own *Error
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &own):
		return err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{"", "is cut off", "get it again"}
	case errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt):
		return &Error{"", fmt.Sprintf("is damaged (%v)", err), "get it again"}
	}
	return fmt.Errorf("reading the archive: %w", err)
}
