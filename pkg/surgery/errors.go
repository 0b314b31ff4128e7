package surgery

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/shapes"
)

// ShapeError says that an input's shape has no fixed dimensions, or one of 0.
type ShapeError struct {
	Input int // from 0
	Shape shapes.Shape
}

func (e *ShapeError) Error() string {
	return fmt.Sprintf("input %d has shape %s: give it fixed dimensions of at least 1, for instance a batch of 1; the smaller network takes others too", e.Input, e.Shape)
}

// UnstableError says that a model function builds another graph each time, so that no plan for one of them fits the next.
type UnstableError struct{ Inputs []shapes.Shape }

func (e *UnstableError) Error() string {
	return fmt.Sprintf("the model function builds another graph each time for the inputs %v: take out what depends on Go's random numbers, maps or the time", e.Inputs)
}

// ConfigError says which field of a Config can't be used. Nothing was changed.
type ConfigError struct{ Field, Problem, Remedy string }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("Config.%s: %s; %s", e.Field, e.Problem, e.Remedy)
}

// BudgetError says that a budget can't be met.
type BudgetError struct {
	What          string  // "MACs", "parameters" or "units"
	Wanted, Least float64 // shares
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("%.4g of the %s are to stay, but at least %.4g do: ask for more, lower Config.MinUnits or Config.RoundTo, or exclude fewer groups", e.Wanted, e.What, e.Least)
}

// UnknownGroupError says that the network has no group of that name.
type UnknownGroupError struct {
	Name  string
	Known []string
}

func (e *UnknownGroupError) Error() string {
	return fmt.Sprintf("no group %q; there are: %s", e.Name, strings.Join(e.Known, ", "))
}

func (n *Network) unknown(name string) error {
	e := &UnknownGroupError{Name: name}
	for _, g := range n.groups {
		e.Known = append(e.Known, g.Name)
	}
	return e
}

// VanishError says that nothing would be left of something.
type VanishError struct{ What string }

func (e *VanishError) Error() string {
	return fmt.Sprintf("nothing would be left of %s: keep one unit at least", e.What)
}

// UnitError says that a plan names a unit that is not there, or twice.
type UnitError struct {
	Group      string
	Unit, Size int
	Problem    string
}

func (e *UnitError) Error() string {
	return fmt.Sprintf("group %s: unit %d %s; units are numbered from 0 to %d", e.Group, e.Unit, e.Problem, e.Size-1)
}

// OtherNetworkError says that a plan was made for another network.
type OtherNetworkError struct{ Plan, Network string } // digests

func (e *OtherNetworkError) Error() string {
	return fmt.Sprintf("the plan is for the network %.12s, this one is %.12s: trace the network that it was made for, before any surgery, with the same variables", e.Plan, e.Network)
}

// FormatError says that a plan can't be read.
type FormatError struct{ Err error }

func (e *FormatError) Error() string {
	return fmt.Sprintf("no plan can be read: %v; it is JSON as Plan.WriteJSON writes it", e.Err)
}

// Unwrap returns the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// ValueError says that a variable of the network has no value, or one of another shape.
type ValueError struct{ Path, Problem, Remedy string }

func (e *ValueError) Error() string { return fmt.Sprintf("%s %s; %s", e.Path, e.Problem, e.Remedy) }

// ReplayError says that the smaller network can't be built.
type ReplayError struct {
	Op       string // the type of the operation; "" if it is none of them
	Variable string // that it concerns; ""
	Problem  string
	Remedy   string
}

func (e *ReplayError) Error() string {
	text := e.Problem
	if e.Variable != "" {
		text = e.Variable + ": " + text
	}
	if e.Op != "" {
		text = e.Op + ": " + text
	}
	return fmt.Sprintf("the smaller network can't be built: %s; %s", text, e.Remedy)
}

// MaskError says that masks do not say what should go.
type MaskError struct{ Problem, Remedy string }

func (e *MaskError) Error() string { return fmt.Sprintf("masks: %s; %s", e.Problem, e.Remedy) }
