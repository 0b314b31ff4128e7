package experiment

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
)

// Run is a training of one trainer's store.
type Run struct {
	Trainer  *Trainer
	Training Training
}

// RunsError says which of several runs have failed, or were interrupted. The others have ended well. errors.Is and errors.As look into all of them.
type RunsError struct {
	Errs []error // of each run; nil: it ended well
}

func (e *RunsError) Error() string {
	var texts []string
	for i, err := range e.Errs {
		if err != nil {
			texts = append(texts, fmt.Sprintf("run %d: %v", i, err))
		}
	}
	return fmt.Sprintf("%d of %d runs: %s", len(texts), len(e.Errs), strings.Join(texts, "; "))
}

// Unwrap returns the errors of the runs that have one.
func (e *RunsError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// Interrupted tells a notebook that this is no fault: that nothing but an interruption kept runs from their end.
func (e *RunsError) Interrupted() bool {
	for _, err := range e.Unwrap() {
		if i, ok := err.(interface{ Interrupted() bool }); !ok || !i.Interrupted() {
			return false
		}
	}
	return true
}

// TrainTogether trains several stores at the same time, for instance one network from several seeds, each as Trainer.Train does it alone: with the same result, bit for bit, in the
// same Training.Dir, so that a run which was begun alone goes on among others, and the other way round. It returns the results in the order of the runs.
//
// The step of a small network has too little in it for a machine's cores to share: where one replica's step leaves a core waiting, here it does another's. What that saves is
// measured by `espalier bench step`. It asks nothing of the network, where replicas stacked on an axis of one step would need each of its operations rewritten. No function that a Task
// or a Training holds is called for two runs at once: runs take turns but for what the device computes.
//
// A run that fails does not stop the others: the error is then a *RunsError. Data sets that are not Resident hand out one epoch after the other to whoever asks: with one
// among them, the runs are trained in order, one after the other.
func TrainTogether(ctx context.Context, runs ...Run) ([]Result, error) {
	results, failures := make([]Result, len(runs)), &RunsError{Errs: make([]error, len(runs))}
	stores := map[*model.Store]int{}
	atOnce := 2 * runtime.GOMAXPROCS(0) // beyond that they would but push each other out of the caches
	for i, r := range runs {
		if r.Trainer == nil {
			return nil, &ConfigError{fmt.Sprintf("Run %d", i), "it has no Trainer", "set it to what NewTrainer returns"}
		}
		if before, found := stores[r.Trainer.store]; found {
			return nil, &ConfigError{fmt.Sprintf("Run %d", i), fmt.Sprintf("it trains the same store as run %d", before), "give each run a store of its own, by Init, and a Trainer for it"}
		}
		stores[r.Trainer.store] = i
		for _, ds := range []train.Dataset{r.Trainer.task.Train, r.Trainer.task.Validation} {
			if _, ok := ds.(Resident); ds != nil && !ok {
				atOnce = 1
			}
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var thrown any
	places := make(chan struct{}, atOnce)
	for i, r := range runs {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			mu.Lock()
			defer mu.Unlock()
			r.Trainer.turn = turn{&mu}
			defer func() {
				r.Trainer.turn = turn{}
				if p := recover(); p != nil { // of a function of the caller's, who shall see it where he would have seen it otherwise
					thrown = p
				}
			}()
			results[i], failures.Errs[i] = r.Trainer.Train(ctx, r.Training)
		})
	}
	wg.Wait()
	if thrown != nil {
		panic(thrown)
	}
	if len(failures.Unwrap()) > 0 {
		return results, failures
	}
	return results, nil
}

// turn is what runs that are trained together pass on: who has it may do anything, and gives it away while the device computes. The zero value is that of a run that is
// trained alone, which always has it.
type turn struct{ mu *sync.Mutex }

// take waits for the turn and returns what gives it away again.
func (t turn) take() (give func()) {
	if t.mu == nil {
		return func() {}
	}
	t.mu.Lock()
	return t.mu.Unlock
}

// call executes a program of a backend, compiling it where need be, and lets others have the turn meanwhile. Functions that build graphs have to take it.
//
// The arguments are brought to the device before: runs share the tensors of a data set, and GoMLX looks at one without its lock, so that it is lost to a run that looks while another brings it there.
func (t turn) call(b compute.Backend, exec *model.Exec, args ...any) ([]*tensors.Tensor, error) {
	if t.mu != nil {
		for _, arg := range args {
			if x, ok := arg.(*tensors.Tensor); ok {
				if _, err := x.Buffer(b, 0); err != nil {
					return nil, err
				}
			}
		}
		t.mu.Unlock()
		defer t.mu.Lock()
	}
	return exec.Call(args...)
}
