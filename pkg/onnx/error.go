package onnx

import (
	"errors"
	"strings"
	"unicode"
)

// The kinds of an Error, for errors.Is.
var (
	ErrMissing     = errors.New("missing")           // a file that is not there or can't be read
	ErrFormat      = errors.New("not intact")        // not an ONNX file, or one that contradicts itself
	ErrLimit       = errors.New("too large")         // more than can be held, or than the file itself has bytes for
	ErrUnsafe      = errors.New("unsafe")            // data outside of the model's own folder
	ErrUnsupported = errors.New("not supported")     // intact, but there is no rule for it
	ErrShape       = errors.New("shape not settled") // an axis without a size where one is needed, or of another size than expected
)

// Error says what is wrong with a model that is read or written.
type Error struct {
	Kind           error  // one of the above
	File           string // "": it was not in a file
	Where          string // the tensor, or the node with its operation
	Expected, Came string
	Remedy         string
	Err            error // the cause, or nil
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("onnx: ")
	for _, place := range []string{e.File, e.Where} {
		if place != "" {
			b.WriteString(place + ": ")
		}
	}
	b.WriteString("expected " + e.Expected + ", came " + e.Came)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return shown(b.String())
}

// shown is text that may hold names of a file, without what would steer a terminal.
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// Unwrap returns kind and cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
