package zmtp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Type of a socket, as it is named on the wire.
type Type string

// The types that a kernel and its peers use.
const (
	Router Type = "ROUTER"
	Dealer Type = "DEALER"
	Pub    Type = "PUB"
	Sub    Type = "SUB"
	XSub   Type = "XSUB"
	Rep    Type = "REP"
	Req    Type = "REQ"
)

// mayTalk says which types of peers a type of socket talks to.
var mayTalk = map[Type][]Type{
	Router: {Dealer, Req, Router}, Dealer: {Router, Rep, Dealer}, Pub: {Sub, XSub}, Sub: {Pub, "XPUB"}, Rep: {Req, Dealer},
}

const (
	// handshakePatience is what a peer gets to present itself: a peer on the same machine needs a millisecond.
	handshakePatience = 5 * time.Second
	// writePatience is what a peer gets to take a message from us before we give it up.
	writePatience = 30 * time.Second

	maxIdentity = 255
)

// Conn is a connection to one peer.
type Conn struct {
	Peer     Type
	Identity []byte // the peer's; may be empty

	nc     net.Conn
	r      *bufio.Reader
	limits Limits

	mu  sync.Mutex // held while writing
	buf []byte
}

// newConn presents us to a peer and hears what it is.
func newConn(nc net.Conn, own Type, identity []byte, l Limits) (*Conn, error) {
	c := &Conn{nc: nc, r: bufio.NewReaderSize(nc, 1<<16), limits: l.orDefaults()}
	if err := nc.SetDeadline(time.Now().Add(handshakePatience)); err != nil {
		return nil, err
	}
	if err := c.greet(); err != nil {
		return nil, err
	}
	if err := c.ready(own, identity); err != nil {
		return nil, err
	}
	return c, nc.SetDeadline(time.Time{})
}

// greet exchanges signature, version and mechanism.
func (c *Conn) greet() error {
	var own [64]byte
	own[0], own[8], own[9] = 0xff, 1, 0x7f // the 1 is for peers of ZMTP 1, which take it for a length
	own[10], own[11] = 3, 0
	copy(own[12:32], "NULL")
	if _, err := c.nc.Write(own[:]); err != nil {
		return err
	}
	var peer [64]byte
	if _, err := io.ReadFull(c.r, peer[:]); err != nil {
		return err
	}
	switch mechanism := string(bytes.TrimRight(peer[12:32], "\x00")); {
	case peer[0] != 0xff || peer[9] != 0x7f:
		return fmt.Errorf("%w: no signature", ErrProtocol)
	case peer[10] < 3:
		return fmt.Errorf("%w: version %d", ErrProtocol, peer[10])
	case mechanism != "NULL":
		return fmt.Errorf("%w: mechanism %q, expected NULL", ErrProtocol, mechanism)
	}
	return nil
}

// ready exchanges the types of the sockets and their identities.
func (c *Conn) ready(own Type, identity []byte) error {
	body := append([]byte{5}, "READY"...)
	body = appendProperty(body, "Socket-Type", []byte(own))
	if own == Dealer || own == Req || own == Router {
		body = appendProperty(body, "Identity", identity)
	}
	if _, err := c.nc.Write(appendFrame(nil, flagCommand, body)); err != nil {
		return err
	}
	frames, command, err := readMessage(c.r, Limits{Message: 1 << 12, Frames: 1})
	if err != nil {
		return err
	}
	name, rest, ok := splitCommand(frames[0])
	if !command || !ok || name != "READY" {
		return fmt.Errorf("%w: expected READY", ErrProtocol)
	}
	properties, err := parseProperties(rest)
	if err != nil {
		return err
	}
	c.Peer, c.Identity = Type(properties["socket-type"]), []byte(properties["identity"])
	if len(c.Identity) > maxIdentity {
		return fmt.Errorf("%w: an identity of %d bytes", ErrProtocol, len(c.Identity))
	}
	for _, t := range mayTalk[own] {
		if t == c.Peer {
			return nil
		}
	}
	return fmt.Errorf("%w: a %s socket does not talk to a %q", ErrProtocol, own, c.Peer)
}

func appendProperty(b []byte, name string, value []byte) []byte {
	b = append(append(b, byte(len(name))), name...)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
}

// parseProperties reads metadata. Names are lower case in what it returns: ZMTP does not distinguish.
func parseProperties(b []byte) (map[string]string, error) {
	properties := map[string]string{}
	for len(b) > 0 {
		n := int(b[0])
		if len(b) < 1+n+4 {
			return nil, fmt.Errorf("%w: truncated metadata", ErrProtocol)
		}
		name := strings.ToLower(string(b[1 : 1+n]))
		size := binary.BigEndian.Uint32(b[1+n:])
		b = b[1+n+4:]
		if uint64(size) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: truncated metadata", ErrProtocol)
		}
		properties[name], b = string(b[:size]), b[size:]
	}
	return properties, nil
}

func splitCommand(body []byte) (name string, rest []byte, ok bool) {
	if len(body) == 0 || len(body) < 1+int(body[0]) {
		return "", nil, false
	}
	n := int(body[0])
	return string(body[1 : 1+n]), body[1+n:], true
}

// Receive returns the next message. Subscriptions come as in ZMTP 3.0, as a frame that starts with 1 or 0; pings are answered.
// After ErrTooLarge it can be called again, after any other error not.
func (c *Conn) Receive() ([][]byte, error) {
	for {
		frames, command, err := readMessage(c.r, c.limits)
		if err != nil {
			return nil, err
		}
		if !command {
			return frames, nil
		}
		name, rest, ok := splitCommand(frames[0])
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: a malformed command", ErrProtocol)
		case name == "SUBSCRIBE":
			return [][]byte{append([]byte{1}, rest...)}, nil
		case name == "CANCEL":
			return [][]byte{append([]byte{0}, rest...)}, nil
		case name == "PING" && len(rest) >= 2 && len(rest) <= 2+16:
			// Two bytes say how long the peer waits; the rest is its context, which comes back.
			if err := c.write(appendFrame(nil, flagCommand, append([]byte("\x04PONG"), rest[2:]...))); err != nil {
				return nil, err
			}
		case name == "ERROR":
			return nil, fmt.Errorf("%w: the peer refuses us: %q", ErrProtocol, rest)
		}
	}
}

// Send sends a message. It waits until the system has taken it, for half a minute at most.
func (c *Conn) Send(frames ...[]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buf[:0]
	for i, f := range frames {
		flags := byte(flagMore)
		if i == len(frames)-1 {
			flags = 0
		}
		b = appendFrame(b, flags, f)
	}
	if c.buf = b; cap(b) > 1<<20 {
		c.buf = nil // one large message must not keep its memory
	}
	return c.writeLocked(b)
}

func (c *Conn) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeLocked(b)
}

func (c *Conn) writeLocked(b []byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	_, err := c.nc.Write(b)
	return err
}

// Close ends the connection.
func (c *Conn) Close() error { return c.nc.Close() }

// Dial connects to a socket. network is "tcp" or "unix".
func Dial(network, address string, own Type, identity []byte, l Limits) (*Conn, error) {
	nc, err := net.DialTimeout(network, address, handshakePatience)
	if err != nil {
		return nil, err
	}
	c, err := newConn(nc, own, identity, l)
	if err != nil {
		_ = nc.Close() // the first error says it
		return nil, err
	}
	if own == Sub {
		if err := c.Send([]byte{1}); err != nil { // everything
			_ = nc.Close()
			return nil, err
		}
	}
	return c, nil
}
