package guard

import (
	"errors"
	"io"
	"testing"
)

func TestRun(t *testing.T) {
	if err := Run("x", func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := Run("x", func() error { return io.EOF }); err != io.EOF {
		t.Errorf("an error is changed to %v", err)
	}
	if err := Run("build", func() error { panic(io.EOF) }); !errors.Is(err, io.EOF) || err.Error() != "build: EOF" {
		t.Errorf("a panic with an error gives %v", err)
	}
	if err := Run("build", func() error { panic("no such layer") }); err == nil || err.Error() != "build: no such layer" {
		t.Errorf("a panic with a text gives %v", err)
	}
}

func TestBuilding(t *testing.T) {
	for _, thrown := range []any{"text", io.EOF, 7} {
		func() {
			defer func() {
				err, ok := recover().(error)
				if !ok {
					t.Errorf("%v is no error after Building", thrown)
				}
				if thrown == io.EOF && err != io.EOF {
					t.Errorf("%v became %v", thrown, err)
				}
			}()
			defer Building()
			panic(thrown)
		}()
	}
	func() {
		defer Building()
	}()
}
