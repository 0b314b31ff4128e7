package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"github.com/espalier-ml/espalier/pkg/backend/home"
	"github.com/espalier-ml/espalier/pkg/distill"
	"github.com/espalier-ml/espalier/pkg/experiment"
	"github.com/espalier-ml/espalier/pkg/surgery"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// accuracies on the images that are held out, of n.
type accuracies struct {
	large, cut, trained float64
	n                   int
}

// temperature softens the outputs that are learnt from (Hinton et al. 2015, arXiv:1503.02531).
const temperature = 4

// compare tells whether the images are of the model's classes, and says which folder it takes for which. It is an error where they have to be.
func (j *job) compare() (fits bool, err error) {
	t, err := trace.Record(j.backend, j.large.Store, j.large.ModelFn, trace.Config{}, j.inputs...)
	if err != nil {
		return false, err
	}
	fits = j.images.fits(t.Outputs[0].Shape().Dimensions)
	switch {
	case fits:
		j.say("outputs and folders: %s", j.images.mapping())
	case j.epochs > 0 && !j.distill:
		return false, fmt.Errorf("--data: expected images of the model's classes, as many as its output %v has, came %d; give others, or add --distill, which needs no classes",
			t.Outputs[0].Shape().Dimensions, j.images.Train.Classes())
	default:
		j.say("note: the model's output is %v and there are %d folders, so that they are no classes of it: nothing is said of accuracies", t.Outputs[0].Shape().Dimensions, j.images.Train.Classes())
	}
	return fits, nil
}

// guessed tells whether an accuracy is what guessing gives, or less than three standard errors more.
func guessed(accuracy float64, n, classes int) bool {
	p := 1 / float64(classes)
	return accuracy < p+3*math.Sqrt(p*(1-p)/float64(n))
}

// train trains the smaller network, if that was asked for, and judges both, if the images are of the model's classes; nil where they are not.
func (j *job) train(ctx context.Context, small *surgery.Small, fits bool) (*accuracies, error) {
	if j.images == nil {
		return nil, nil
	}
	var err error
	held := j.images.Validation
	judge := func(task experiment.Task, s *model.Store) (float64, error) {
		if !fits || held.Len() == 0 {
			return 0, nil
		}
		m, err := experiment.Evaluate(ctx, task, s, held)
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
		if guessed(a.large, held.Len(), j.images.Train.Classes()) {
			j.say("note: the large network is right on %.2f%% of the images, as whoever guesses: is each folder the class of its output (%s), and are --mean and --std those that it was trained with?",
				100*a.large, j.images.mapping())
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
		j.say("asking the large network about %d images …", j.images.Train.Len())
		lesson, err := distill.Teach(ctx, distill.Config{
			Backend: j.backend, Student: task.Model, Store: small.Store, Train: j.images.Train,
			Teachers: []distill.Teacher{{Name: "the large network", Model: large.Model, Store: j.large.Store}},
			Terms:    []distill.Term{distill.Logits(temperature, 1)}, // nothing from the classes of the images, which may be others
			Limit:    math.MaxInt64,                                  // the images, which lie in memory, take more
		})
		if err != nil {
			return nil, err
		}
		learning.Model, learning.Loss, learning.Train = lesson.Model, lesson.Loss, lesson.Train
	}
	if err := j.learn(ctx, learning, small.Store); err != nil {
		return nil, err
	}
	if a != nil {
		if a.trained, err = judge(task, small.Store); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// learn trains a network. An interrupted training goes on when the same command is run again, and what it has made is loaded until the smaller model is written.
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
	j.trained = result.Dir
	return nil
}
