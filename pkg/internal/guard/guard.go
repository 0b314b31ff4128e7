// Package guard turns the panics of graph building into errors, at the places where the library is entered.
package guard

import "fmt"

// Run calls f and returns its error. A panic becomes an error that begins with what was being done and wraps the cause.
func Run(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v", r)
			}
			err = fmt.Errorf("%s: %w", what, cause)
		}
	}()
	return f()
}

// Building is deferred in functions that build graphs, and makes what they panic with an error: GoMLX holds a lock while it builds, which it gives back for
// panics that are errors only, so that after others the next call would wait for ever.
func Building() {
	if r := recover(); r != nil {
		if err, ok := r.(error); ok {
			panic(err)
		}
		panic(fmt.Errorf("%v", r))
	}
}
