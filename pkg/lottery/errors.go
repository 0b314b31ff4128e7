package lottery

import "fmt"

// LadderError says that a rung can't be reached. Nothing was trained for it.
type LadderError struct {
	Round           int
	Path            string // the parameter; "": none in particular
	Problem, Remedy string
}

func (e *LadderError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("rung %d: %s; %s", e.Round, e.Problem, e.Remedy)
	}
	return fmt.Sprintf("rung %d, %s: %s; %s", e.Round, e.Path, e.Problem, e.Remedy)
}

// RewindError says that the weights after a step can't be had.
type RewindError struct {
	Step, Total int
	Saved       []int // the steps whose weights are there; nil: the step is none of the run's
}

func (e *RewindError) Error() string {
	if e.Saved == nil {
		return fmt.Sprintf("rewinding to step %d of a training of %d: give a step from 0, the initialisation, to the one before the last", e.Step, e.Total)
	}
	return fmt.Sprintf("rewinding to step %d: its weights were not saved, those of steps %v were; name it in Config.Save, and the dense network is trained again with that", e.Step, e.Saved)
}
