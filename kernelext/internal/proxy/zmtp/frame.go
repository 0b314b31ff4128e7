package zmtp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Flags of a frame.
const (
	flagMore    = 1 << 0
	flagLong    = 1 << 1
	flagCommand = 1 << 2
)

// Limits bound what a peer can make us hold.
type Limits struct {
	Message int // bytes of a message. Default: 64 MiB
	Frames  int // frames of a message. Default: 1024
}

func (l Limits) orDefaults() Limits {
	if l.Message == 0 {
		l.Message = 64 << 20
	}
	if l.Frames == 0 {
		l.Frames = 1024
	}
	return l
}

// ErrTooLarge says that a message was over the limits. It was skipped; the next one can be received.
var ErrTooLarge = errors.New("message over the limits")

// ErrProtocol says that what came is not ZMTP 3. Nothing more can be received.
var ErrProtocol = errors.New("not ZMTP 3")

// appendFrame appends a frame in its wire form.
func appendFrame(b []byte, flags byte, body []byte) []byte {
	if len(body) > 255 {
		b = append(b, flags|flagLong)
		b = binary.BigEndian.AppendUint64(b, uint64(len(body)))
	} else {
		b = append(b, flags, byte(len(body)))
	}
	return append(b, body...)
}

// readHeader reads the flags and the size of a frame.
func readHeader(r *bufio.Reader) (flags byte, size uint64, err error) {
	flags, err = r.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	if flags&^(flagMore|flagLong|flagCommand) != 0 || flags&flagCommand != 0 && flags&flagMore != 0 {
		return 0, 0, fmt.Errorf("%w: a frame with the flags %#x", ErrProtocol, flags)
	}
	if flags&flagLong == 0 {
		n, err := r.ReadByte()
		return flags, uint64(n), err
	}
	var long [8]byte
	if _, err := io.ReadFull(r, long[:]); err != nil {
		return 0, 0, err
	}
	size = binary.BigEndian.Uint64(long[:])
	if size > 1<<62 {
		return 0, 0, fmt.Errorf("%w: a frame of %d bytes", ErrProtocol, size)
	}
	return flags, size, nil
}

// readBody reads a frame's body. Memory is taken as bytes arrive: a header that promises much costs nothing.
func readBody(r io.Reader, size int) ([]byte, error) {
	const step = 1 << 20
	body := make([]byte, 0, min(size, step))
	for len(body) < size {
		n := min(size-len(body), step)
		body = slices.Grow(body, n)
		k, err := io.ReadFull(r, body[len(body):len(body)+n])
		body = body[:len(body)+k]
		if err != nil {
			return nil, err
		}
	}
	return body, nil
}

// readMessage reads a message, or a command, which is a single frame. A message over the limits is read to its end and dropped: ErrTooLarge.
func readMessage(r *bufio.Reader, l Limits) (frames [][]byte, command bool, err error) {
	total, count, tooLarge := uint64(0), 0, false
	for {
		flags, size, err := readHeader(r)
		if err != nil {
			return nil, false, err
		}
		if flags&flagCommand != 0 && count > 0 {
			return nil, false, fmt.Errorf("%w: a command within a message", ErrProtocol)
		}
		if total += size; total > uint64(l.Message) {
			tooLarge = true
		}
		if count++; count > l.Frames {
			tooLarge = true
		}
		if tooLarge {
			frames = nil
			total = uint64(l.Message) + 1 // so that it can't overflow
			if _, err := io.CopyN(io.Discard, r, int64(size)); err != nil {
				return nil, false, err
			}
		} else {
			body, err := readBody(r, int(size))
			if err != nil {
				return nil, false, err
			}
			frames = append(frames, body)
		}
		if flags&flagMore == 0 {
			if tooLarge {
				return nil, false, ErrTooLarge
			}
			return frames, flags&flagCommand != 0, nil
		}
	}
}
