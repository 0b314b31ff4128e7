package wire

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"time"
)

// NewID returns a fresh id, for messages, sessions and keys.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// New makes a message that answers parent, or none if that is nil. session is the kernel's.
func New(session, kind string, parent *Message, content any) *Message {
	m := &Message{
		Header: Header{ID: NewID(), Type: kind, Session: session, Username: "kernel", Date: time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"), Version: Version},
		// Of parent's header nothing is lost, whatever front ends put into it.
		RawParent: []byte("{}"), Metadata: []byte("{}"),
	}
	if parent != nil {
		m.RawParent, m.ParentID = parent.RawHeader, parent.Header.ID
	}
	m.RawHeader = mustJSON(m.Header)
	m.Content = mustJSON(content)
	return m
}

// mustJSON is for what we make ourselves.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("wire: " + err.Error()) // a mistake in this program: contents are structs and maps of plain values
	}
	return data
}
