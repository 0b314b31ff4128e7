package fault

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestErrorSaysWhereWhatAndRemedy(t *testing.T) {
	err := error(&Error{Kind: ErrFormat, File: "a.gz", Entry: "b/c", Offset: 16, Expected: "10 bytes", Came: "9",
		Remedy: "get it again", Err: io.ErrUnexpectedEOF})
	want := `a.gz: "b/c" at byte 16: malformed data: expected 10 bytes, came 9 (unexpected EOF); get it again`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, target := range []error{ErrFormat, io.ErrUnexpectedEOF} {
		if !errors.Is(err, target) {
			t.Errorf("errors.Is(err, %v) is false", target)
		}
	}
	if errors.Is(err, ErrDigest) {
		t.Error("errors.Is(err, ErrDigest) is true")
	}
	short := &Error{Kind: ErrConfig, Expected: "a batch of 1 or more", Came: "-3"}
	if diff := cmp.Diff("wrong configuration: expected a batch of 1 or more, came -3", short.Error()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
