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
