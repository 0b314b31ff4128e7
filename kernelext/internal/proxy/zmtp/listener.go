package zmtp

import (
	"crypto/rand"
	"errors"
	"net"
	"sync"
	"time"
)

// maxPeers bounds the connections of one socket: a front end has one, a server with many front ends a few.
const maxPeers = 256

// listener accepts peers, and keeps those that present themselves.
type listener struct {
	own    Type
	limits Limits
	l      net.Listener
	serve  func(*Conn) // reads from the peer until it is gone

	mu     sync.Mutex
	open   map[net.Conn]bool
	closed bool
}

func listen(network, address string, own Type, l Limits, serve func(*Conn)) (*listener, error) {
	nl, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	s := &listener{own: own, limits: l, l: nl, serve: serve, open: map[net.Conn]bool{}}
	go s.accept()
	return s, nil
}

func (s *listener) accept() {
	for {
		nc, err := s.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // out of file descriptors, for instance: that passes
			continue
		}
		if !s.admit(nc) {
			_ = nc.Close()
			continue
		}
		go func() {
			defer s.dismiss(nc)
			if c, err := newConn(nc, s.own, nil, s.limits); err == nil {
				s.serve(c)
			}
		}()
	}
}

func (s *listener) admit(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= maxPeers {
		return false
	}
	s.open[nc] = true
	return true
}

func (s *listener) dismiss(nc net.Conn) {
	_ = nc.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, nc)
}

// Addr returns where the socket listens.
func (s *listener) Addr() net.Addr { return s.l.Addr() }

// Close stops listening and ends all connections.
func (s *listener) Close() error {
	err := s.l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for nc := range s.open {
		_ = nc.Close()
	}
	return err
}

// freshIdentity makes an identity for a peer that has none. It starts with a zero byte, which those of peers never do.
func freshIdentity() []byte {
	id := make([]byte, 9)
	_, _ = rand.Read(id[1:]) // never fails
	return id
}
