// Package wire is the form of Jupyter's messages: frames, signatures, headers (https://jupyter-client.readthedocs.io/en/stable/messaging.html).
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// Version of the messaging protocol that we speak.
const Version = "5.4"

// Header of a message.
type Header struct {
	ID       string `json:"msg_id"`
	Type     string `json:"msg_type"`
	Session  string `json:"session"`
	Username string `json:"username"`
	Date     string `json:"date"`
	Version  string `json:"version"`
}

// Message is a message. The four JSON parts are kept as they came, so that what is passed on is not changed.
type Message struct {
	Identities [][]byte
	Header     Header
	ParentID   string // msg_id of the message that this one answers, "" for none

	RawHeader, RawParent, Metadata, Content []byte
	Buffers                                 [][]byte
}

// MalformedError says why what came is not a message.
type MalformedError struct{ Why string }

func (e *MalformedError) Error() string { return "not a Jupyter message: " + e.Why }

// ErrSignature says that a message was not signed with the kernel's key.
var ErrSignature = errors.New("wrong signature")

// ErrReplayed says that a message came a second time.
var ErrReplayed = errors.New("the same message came before")

var delimiter = []byte("<IDS|MSG>")

const (
	maxIdentities = 16
	maxBuffers    = 256
	maxHeader     = 64 << 10
)

// Parse reads a message from its frames and checks its signature.
func Parse(key Key, frames [][]byte) (*Message, error) {
	at := -1
	for i, f := range frames[:min(len(frames), maxIdentities+1)] {
		if bytes.Equal(f, delimiter) {
			at = i
			break
		}
	}
	if at < 0 {
		return nil, &MalformedError{"no delimiter"}
	}
	rest := frames[at+1:]
	if len(rest) < 5 {
		return nil, &MalformedError{fmt.Sprintf("%d frames after the delimiter, expected 5 or more", len(rest))}
	}
	if len(rest) > 5+maxBuffers {
		return nil, &MalformedError{fmt.Sprintf("%d buffers, at most %d are allowed", len(rest)-5, maxBuffers)}
	}
	m := &Message{Identities: frames[:at], RawHeader: rest[1], RawParent: rest[2], Metadata: rest[3], Content: rest[4], Buffers: rest[5:]}
	if err := key.check(rest[0], m); err != nil {
		return nil, err
	}
	if len(m.RawHeader) > maxHeader || len(m.RawParent) > maxHeader {
		return nil, &MalformedError{"a header of more than 64 KiB"}
	}
	if err := json.Unmarshal(m.RawHeader, &m.Header); err != nil {
		return nil, &MalformedError{"its header: " + err.Error()}
	}
	if m.Header.ID == "" || m.Header.Type == "" {
		return nil, &MalformedError{"its header has no msg_id or no msg_type"}
	}
	var parent struct {
		ID string `json:"msg_id"`
	}
	if err := json.Unmarshal(m.RawParent, &parent); err != nil {
		return nil, &MalformedError{"its parent header: " + err.Error()}
	}
	m.ParentID = parent.ID
	for name, part := range map[string][]byte{"metadata": m.Metadata, "content": m.Content} {
		if !isObject(part) {
			return nil, &MalformedError{"its " + name + " is not a JSON object"}
		}
	}
	return m, nil
}

// isObject says whether text is valid JSON, and an object.
func isObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{' && json.Valid(text)
}

// Frames returns the message as it goes onto a socket, signed, after the given frames.
func (m *Message) Frames(key Key, before ...[]byte) [][]byte {
	frames := make([][]byte, 0, len(before)+6+len(m.Buffers))
	frames = append(append(frames, before...), delimiter, key.sign(m), m.RawHeader, m.RawParent, m.Metadata, m.Content)
	return append(frames, m.Buffers...)
}

// Decode reads the content.
func (m *Message) Decode(into any) error {
	if err := json.Unmarshal(m.Content, into); err != nil {
		return &MalformedError{"the content of " + m.Header.Type + ": " + err.Error()}
	}
	return nil
}

// With returns the message with another content.
func (m *Message) With(content any) (*Message, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	other := *m
	other.Content = data
	return &other, nil
}

// Object reads the content as it is, for what has fields that we don't know.
func (m *Message) Object() (map[string]any, error) {
	var object map[string]any
	err := m.Decode(&object)
	return object, err
}

// Merge returns an object with the fields of both; those of the second win.
func Merge(a, b map[string]any) map[string]any {
	merged := maps.Clone(a)
	maps.Copy(merged, b)
	return merged
}
