package wire

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestThereAndBack(t *testing.T) {
	key := NewKey("secret")
	request := New("s", "execute_request", nil, map[string]any{"code": "x"})
	m := New("s", "execute_reply", request, map[string]any{"status": "ok"})
	m.Buffers = [][]byte{{1, 2}}
	got, err := Parse(NewKey("secret"), m.Frames(key, []byte("identity")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m.Header, got.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if got.ParentID != request.Header.ID || string(got.Identities[0]) != "identity" || string(got.Buffers[0]) != "\x01\x02" {
		t.Errorf("got %+v", got)
	}
}

// The signature of a message as jupyter_client makes it.
func TestSignature(t *testing.T) {
	m := &Message{RawHeader: []byte(`{"msg_id":"1"}`), RawParent: []byte(`{}`), Metadata: []byte(`{}`), Content: []byte(`{}`)}
	// python3: hmac.new(b"secret", b'{"msg_id":"1"}{}{}{}', "sha256").hexdigest()
	const want = "f6f00555a98e51dc0a7993a211211b64710b098200d21577542d73a6d7b8a667"
	if got := string(NewKey("secret").sign(m)); got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestRefused(t *testing.T) {
	good := func() [][]byte { return New("s", "t", nil, map[string]any{}).Frames(NewKey("secret")) }
	changed := good()
	changed[5] = []byte(`{"a":1}`)
	many := append(good(), make([][]byte, maxBuffers+1)...)
	for name, c := range map[string]struct {
		frames [][]byte
		want   error
	}{
		"another key":      {New("s", "t", nil, map[string]any{}).Frames(NewKey("other")), ErrSignature},
		"changed":          {changed, ErrSignature},
		"not signed":       {New("s", "t", nil, map[string]any{}).Frames(Key{}), ErrSignature},
		"too many buffers": {many, nil},
		"truncated":        {good()[:4], nil},
		"empty":            {nil, nil},
		"huge header":      {(&Message{RawHeader: []byte(`{"msg_id":"` + strings.Repeat("x", maxHeader) + `"}`), RawParent: []byte("{}"), Metadata: []byte("{}"), Content: []byte("{}")}).Frames(NewKey("secret")), nil},
	} {
		_, err := Parse(NewKey("secret"), c.frames)
		var malformed *MalformedError
		if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &malformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	key := NewKey("secret")
	frames := good()
	if _, err := Parse(key, frames); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(key, frames); !errors.Is(err, ErrReplayed) {
		t.Errorf("the second time: error %v, want ErrReplayed", err)
	}
	if _, err := Parse(Key{}, New("s", "t", nil, map[string]any{}).Frames(Key{})); err != nil {
		t.Errorf("without a key: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("<IDS|MSG>"), []byte(`{"msg_id":"1","msg_type":"x"}`), []byte("{}"))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		m, err := Parse(Key{}, [][]byte{a, b, c, a, b, c, a})
		if err == nil {
			_, _ = m.Object()
		}
		m = &Message{RawHeader: a, RawParent: b, Metadata: c, Content: a}
		if m, err = Parse(Key{}, m.Frames(Key{}, b)); err == nil {
			_, _ = m.Object()
		}
	})
}

func TestConnectionFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernel.json")
	for text, want := range map[string]string{
		`{"ip":"127.0.0.1","shell_port":5,"key":"k"}`:                "tcp 127.0.0.1:5",
		`{"transport":"ipc","ip":"/tmp/k","shell_port":5}`:           "unix /tmp/k-5",
		`{"ip":"*","shell_port":5}`:                                  "tcp :5",
		`{"ip":"::1","shell_port":5}`:                                "tcp [::1]:5",
		`{"ip":"127.0.0.1","key":"k","signature_scheme":"hmac-md5"}`: "",
		`{"transport":"inproc"}`:                                     "",
		`{`:                                                          "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := ReadConnection(path)
		if want == "" {
			if err == nil {
				t.Errorf("%s was taken", text)
			}
			continue
		}
		network, address := c.Address(c.Shell)
		if got := network + " " + address; err != nil || got != want {
			t.Errorf("%s: %q (error %v), want %q", text, got, err, want)
		}
	}
}
