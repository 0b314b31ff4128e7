package sparsetrain

import "fmt"

// UpdateError says why an update can't be used. Nothing was changed.
type UpdateError struct{ Update, Problem, Remedy string }

func (e *UpdateError) Error() string {
	return fmt.Sprintf("update %q: %s; %s", e.Update, e.Problem, e.Remedy)
}

// DensityError says that a density can't be used. Nothing was changed.
type DensityError struct {
	Density float64
	Path    string // the parameter, or the first of a group; "": of all
	Problem string
}

func (e *DensityError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("density %v: %s; it is the share of weights that is alive, above 0 and at most 1, for instance 0.05", e.Density, e.Problem)
	}
	return fmt.Sprintf("density %v: %s of %s; ask for a higher density, or take another Update.Budget (budget.Global asks for no share of each layer), or leave the parameter out", e.Density, e.Problem, e.Path)
}

// MaskError says that the masks of the store are not those of a start. Nothing was changed.
type MaskError struct{ Path, Problem, Remedy string }

func (e *MaskError) Error() string {
	return fmt.Sprintf("the mask of %s: %s; %s", e.Path, e.Problem, e.Remedy)
}

// MomentumError says that a rule reads the optimizer's momentum and the store has none that it can read. Nothing was changed.
type MomentumError struct {
	Update, Path    string
	Problem, Remedy string
}

func (e *MomentumError) Error() string {
	return fmt.Sprintf("update %q reads the optimizer's momentum of %s, but %s; %s", e.Update, e.Path, e.Problem, e.Remedy)
}

// RuleError says that a plug-in has given what can't be used. Nothing was changed.
type RuleError struct{ Rule, Path, Problem string }

func (e *RuleError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("rule %q: %s", e.Rule, e.Problem)
	}
	return fmt.Sprintf("rule %q on %s: %s", e.Rule, e.Path, e.Problem)
}
