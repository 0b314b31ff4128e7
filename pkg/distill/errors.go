package distill

import (
	"fmt"
	"strings"
)

// ConfigError says which part of a Config can't be used. Nothing was changed.
type ConfigError struct{ Field, Problem, Remedy string }

func (e *ConfigError) Error() string { return fmt.Sprintf("%s: %s; %s", e.Field, e.Problem, e.Remedy) }

// ClassesError says that a teacher and the student have other classes, by their number, so that their logits can't be compared.
type ClassesError struct {
	Teacher                        string
	StudentClasses, TeacherClasses int
}

func (e *ClassesError) Error() string {
	return fmt.Sprintf("the student has %d outputs and its teacher %s has %d: expected the same classes in the same order; give the student the teacher's outputs, or leave "+
		"Logits and LogitsMSE out and compare layers", e.StudentClasses, e.Teacher, e.TeacherClasses)
}

// LayerError says that what is to be compared was not found in a network.
type LayerError struct {
	Network string // "the student", or the teacher's name
	Path    string
	Known   []string // the paths of its kernels
}

func (e *LayerError) Error() string {
	return fmt.Sprintf("%s has no layer whose kernel is %q, a product of an input with it; there are: %s", e.Network, e.Path, strings.Join(e.Known, ", "))
}

// ShapeError says that a term can't compare what it was given.
type ShapeError struct {
	Term             string
	Student, Teacher []int // without the batch
	Problem, Remedy  string
}

func (e *ShapeError) Error() string {
	return fmt.Sprintf("%s: the student has %v and the teacher %v for each example: %s; %s", e.Term, e.Student, e.Teacher, e.Problem, e.Remedy)
}

// TooLargeError says that the teachers' answers would take more memory than Config.Limit.
type TooLargeError struct {
	Data         string
	Examples     int
	Bytes, Limit int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the teachers' answers to the %d examples of %s take %.1f MB, expected at most %.1f MB: compare smaller layers, raise Config.Limit, or give a data set that is read "+
		"batch by batch, for which nothing is kept", e.Examples, e.Data, float64(e.Bytes)/1e6, float64(e.Limit)/1e6)
}
