package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"sync"
)

// Key signs messages and checks them. The zero value signs nothing and accepts everything, as Jupyter's empty key does.
type Key struct {
	secret []byte
	seen   *seen
}

// NewKey makes a key from a connection file's.
func NewKey(secret string) Key {
	if secret == "" {
		return Key{}
	}
	return Key{secret: []byte(secret), seen: &seen{digests: map[[sha256.Size]byte]bool{}}}
}

func (k Key) digest(m *Message) []byte {
	h := hmac.New(sha256.New, k.secret)
	for _, part := range [][]byte{m.RawHeader, m.RawParent, m.Metadata, m.Content} {
		h.Write(part)
	}
	return h.Sum(nil)
}

func (k Key) sign(m *Message) []byte {
	if k.secret == nil {
		return []byte{}
	}
	return hex.AppendEncode(nil, k.digest(m))
}

func (k Key) check(signature []byte, m *Message) error {
	if k.secret == nil {
		return nil
	}
	want := k.digest(m)
	got := make([]byte, sha256.Size)
	if len(signature) != 2*sha256.Size {
		return ErrSignature
	}
	if _, err := hex.Decode(got, signature); err != nil || !hmac.Equal(got, want) {
		return ErrSignature
	}
	if k.seen.before([sha256.Size]byte(want)) {
		return ErrReplayed
	}
	return nil
}

// seen remembers the digests of the last messages: whoever can read a connection could send a message again.
type seen struct {
	mu      sync.Mutex
	digests map[[sha256.Size]byte]bool
	order   [][sha256.Size]byte
	next    int
}

const maxSeen = 1 << 14

func (s *seen) before(d [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.digests[d] {
		return true
	}
	if len(s.order) < maxSeen {
		s.order = append(s.order, d)
	} else {
		delete(s.digests, s.order[s.next])
		s.order[s.next] = d
		s.next = (s.next + 1) % maxSeen
	}
	s.digests[d] = true
	return false
}
