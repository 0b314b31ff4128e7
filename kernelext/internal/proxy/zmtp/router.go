package zmtp

import "sync"

// RouterSocket receives messages of many peers, and sends to the peer that is named.
type RouterSocket struct {
	*listener
	mu    sync.Mutex
	peers map[string]*Conn
}

// ListenRouter opens a ROUTER socket. receive is called for each message, for the messages of one peer in their order, with the peer's identity;
// refused is called for messages over the limits.
func ListenRouter(network, address string, l Limits, receive func(identity []byte, frames [][]byte), refused func(error)) (*RouterSocket, error) {
	r := &RouterSocket{peers: map[string]*Conn{}}
	var err error
	r.listener, err = listen(network, address, Router, l, func(c *Conn) {
		identity := c.Identity
		if len(identity) == 0 || identity[0] == 0 {
			identity = freshIdentity()
		}
		r.mu.Lock()
		if old := r.peers[string(identity)]; old != nil {
			_ = old.Close() // the peer has come back by another connection
		}
		r.peers[string(identity)] = c
		r.mu.Unlock()
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.peers[string(identity)] == c {
				delete(r.peers, string(identity))
			}
		}()
		each(c, func(frames [][]byte) { receive(identity, frames) }, refused)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// each calls receive for each message of a peer until it is gone.
func each(c *Conn, receive func([][]byte), refused func(error)) {
	for {
		frames, err := c.Receive()
		switch {
		case err == nil:
			receive(frames)
		case err == ErrTooLarge:
			refused(err)
		default:
			return
		}
	}
}

// Send sends a message to a peer. For a peer that is gone it does nothing, as ROUTER sockets do.
func (r *RouterSocket) Send(identity []byte, frames ...[]byte) {
	r.mu.Lock()
	c := r.peers[string(identity)]
	r.mu.Unlock()
	if c == nil {
		return
	}
	if c.Send(frames...) != nil {
		_ = c.Close() // it does not take what we send: its reader ends
	}
}

// EchoSocket is a REP socket that answers with what it got: a kernel's heartbeat.
type EchoSocket struct{ *listener }

// ListenEcho opens an EchoSocket.
func ListenEcho(network, address string) (*EchoSocket, error) {
	l, err := listen(network, address, Rep, Limits{Message: 1 << 16, Frames: 16}, func(c *Conn) {
		for {
			frames, err := c.Receive()
			if err != nil && err != ErrTooLarge {
				return
			}
			if err == nil && c.Send(frames...) != nil {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &EchoSocket{l}, nil
}
