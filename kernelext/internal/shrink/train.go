package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/backend/home"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// accuracies on the images that are held out, of n.
type accuracies struct {
	large, cut, trained float64
	n                   int
}

// teacher is the scope of the large network's variables while the small one learns from it.
const teacher = "teacher"

// temperature softens the outputs that are learnt from (Hinton et al. 2015, arXiv:1503.02531).
const temperature = 4

// train trains the smaller network, if that was asked for, and judges both, if the images are of the model's classes; nil where they are not.
func (j *job) train(ctx context.Context, small *surgery.Small) (*accuracies, error) {
	if j.images == nil {
		return nil, nil
	}
	t, err := trace.Record(j.backend, j.large.Store, j.large.ModelFn, trace.Config{}, j.inputs...)
	if err != nil {
		return nil, err
	}
	fits := j.images.fits(t.Outputs[0].Shape().Dimensions)
	if !fits && !j.distill && j.epochs > 0 {
		return nil, fmt.Errorf("--data: expected images of the model's classes, as many as its output %v has, came %d; give others, or add --distill, which needs no classes",
			t.Outputs[0].Shape().Dimensions, j.images.Train.Classes())
	}
	held := j.images.Validation
	judge := func(task experiment.Task, s *model.Store) (float64, error) {
		if !fits || held.Len() == 0 {
			return 0, nil
		}
		m, err := experiment.Evaluate(task, s, held)
		return m.Accuracy, err
	}
	a := &accuracies{n: held.Len()}
	if !fits || held.Len() == 0 {
		a = nil
	}
	large := experiment.Task{Backend: j.backend, Model: j.images.fed(j.large.ModelFn), Train: j.images.Train}
	task := experiment.Task{Backend: j.backend, Model: j.images.fed(small.ModelFn), Train: j.images.Train}
	if a != nil {
		j.say("judging both on %d images …", held.Len())
		if a.large, err = judge(large, j.large.Store); err != nil {
			return nil, err
		}
		if a.cut, err = judge(task, small.Store); err != nil {
			return nil, err
		}
	}
	if j.epochs == 0 {
		return a, nil
	}
	learning := task
	if j.distill {
		if err := j.seatTeacher(small.Store); err != nil {
			return nil, err
		}
		learning.Model = j.taught(small)
		learning.Loss = func(_, predictions []*graph.Node) *graph.Node { // all of the loss comes from the teacher
			return graph.ScalarZero(predictions[0].Graph(), predictions[0].DType())
		}
	}
	if err := j.learn(ctx, learning, small.Store); err != nil {
		return nil, err
	}
	if err := unseatTeacher(small.Store); err != nil {
		return nil, err
	}
	if a != nil {
		if a.trained, err = judge(task, small.Store); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// learn trains a network. An interrupted training goes on when the same command is run again.
func (j *job) learn(ctx context.Context, task experiment.Task, s *model.Store) error {
	cache, err := home.CacheDir()
	if err != nil {
		return err
	}
	content, err := os.ReadFile(j.model)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	shown := -1
	what := "training on the labels"
	if j.distill {
		what = "learning from the large network"
	}
	result, err := experiment.Train(ctx, task, s, experiment.Training{
		Epochs: j.epochs, Optimizer: optimizer.Adam().LearningRate(j.rate).Done(), Rate: experiment.CosineDecay, Seed: j.seed,
		Dir: filepath.Join(cache, "shrink"), Name: fmt.Sprintf("%s distill %v mean %v std %v", hex.EncodeToString(sum[:]), j.distill, j.mean, j.std),
		Progress: func(done, total int, note string) {
			if tenth := 10 * done / max(1, total); tenth > shown {
				shown = tenth
				j.say("%s: step %d of %d, %s", what, done, total, note)
			}
		},
	})
	if err != nil {
		return err
	}
	if result.Dir != "" {
		return os.RemoveAll(result.Dir) // it was there to go on from
	}
	return nil
}

// seatTeacher puts the large network's variables beside the small one's, in a scope of their own, where training leaves them alone.
func (j *job) seatTeacher(s *model.Store) error {
	for v := range j.large.Store.IterVariables() {
		value, err := v.Value()
		if err != nil {
			return err
		}
		if value, err = value.LocalClone(); err != nil {
			return err
		}
		made, err := s.CreateVariable(model.ScopeSeparator+teacher+v.Path(), value)
		if err != nil {
			return err
		}
		made.SetTrainable(false)
	}
	return nil
}

func unseatTeacher(s *model.Store) error {
	var paths []string
	for v := range s.IterVariables() {
		if strings.HasPrefix(v.Path(), model.ScopeSeparator+teacher+model.ScopeSeparator) {
			paths = append(paths, v.Path())
		}
	}
	for _, path := range paths {
		if err := s.DeleteVariable(path); err != nil {
			return err
		}
	}
	return nil
}

// taught is the small network, which in training learns the large one's outputs: by the Kullback-Leibler divergence of softened probabilities.
func (j *job) taught(small *surgery.Small) experiment.ModelFn {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		in := []*graph.Node{j.images.prepared(x)}
		y := small.ModelFn(scope, in)[0] // [batch, classes]
		if !scope.IsTraining(x.Graph()) {
			return y
		}
		want := graph.StopGradient(j.large.ModelFn(scope.Store().RootScope().At(teacher), in)[0])
		soft := func(logits *graph.Node) *graph.Node {
			return graph.LogSoftmax(graph.DivScalar(logits, temperature), -1)
		}
		p, q := soft(want), soft(y)
		divergence := graph.ReduceSum(graph.Mul(graph.Exp(p), graph.Sub(p, q)), -1) // [batch]
		train.AddMainLoss(graph.MulScalar(graph.ReduceAllMean(divergence), temperature*temperature))
		return y
	}
}
