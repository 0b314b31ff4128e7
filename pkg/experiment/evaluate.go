package experiment

import (
	"context"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
)

// evaluationBatch is how many examples of a shape [n, …] are evaluated at a time: enough to keep the device busy, and fewer of large examples, for
// the sake of the memory of their activations. Where it can it divides n: a last batch of another size would be compiled apart.
func evaluationBatch(examples shapes.Shape) int {
	n, size := examples.Dimensions[0], max(1, examples.Size()/max(1, examples.Dimensions[0]))
	batch := max(16, min(1000, 1<<22/size))
	for b := batch; b > batch/2; b-- {
		if n%b == 0 {
			return b
		}
	}
	return batch
}

// Metrics of a network on a data set: means over all of its N examples, the last partial batch included. An example is right whose largest logit is that of its label. With a Task.Loss, a single logit says 1
// where it is above 0, and labels [n, classes] have their class where they are largest; of what is no classification, Accuracy tells nothing.
type Metrics struct {
	Loss, Accuracy float64 // Accuracy between 0 and 1
	N              int
}

type evalKey struct{ resident Resident } // nil: a data set that yields batches

// Evaluate is NewTrainer and Trainer.Evaluate, for a single evaluation.
func Evaluate(ctx context.Context, task Task, store *model.Store, ds train.Dataset) (Metrics, error) {
	tr, err := NewTrainer(task, store)
	if err != nil {
		return Metrics{}, err
	}
	return tr.Evaluate(ctx, ds)
}

// Evaluate computes the network's loss and accuracy on a data set, in inference mode. It changes no variable. Where ctx is cancelled it stops between
// two batches, with ctx.Err().
func (tr *Trainer) Evaluate(ctx context.Context, ds train.Dataset) (Metrics, error) {
	if r, ok := ds.(Resident); ok {
		folds, err := tr.evaluateFolds(ctx, r, 1)
		if err != nil {
			return Metrics{}, err
		}
		return folds[0], nil
	}
	if ds == nil {
		return Metrics{}, ErrNoData
	}
	var m Metrics
	if err := guard.Run(fmt.Sprintf("evaluate on %q", ds.Name()), func() error { return tr.evaluateBatches(ctx, ds, &m) }); err != nil {
		return Metrics{}, err
	}
	return m, m.mean(ds)
}

// EvaluateFolds is Evaluate on n parts of a data set of equal size, always the same: what several networks have on them can be compared in pairs. What is left over by
// the division, fewer than n examples at the end, is not looked at.
func (tr *Trainer) EvaluateFolds(ctx context.Context, ds train.Dataset, n int) ([]Metrics, error) {
	r, ok := ds.(Resident)
	if !ok {
		return nil, &ConfigError{"data set", "it does not say how many examples it has", "use one that implements Resident, as those of this project do"}
	}
	if inputs, _ := r.Arrays(); n < 1 || n > inputs.Shape().Dimensions[0] {
		return nil, &ConfigError{"folds", fmt.Sprintf("%d of %q", n, r.Name()), "give at least one, and no more than there are examples"}
	}
	return tr.evaluateFolds(ctx, r, n)
}

func (tr *Trainer) evaluateFolds(ctx context.Context, r Resident, n int) ([]Metrics, error) {
	if err := sized(r); err != nil {
		return nil, err
	}
	folds := make([]Metrics, n)
	err := guard.Run(fmt.Sprintf("evaluate on %q", r.Name()), func() error {
		exec, err := tr.evaluator(evalKey{r}, func(scope *model.Scope, nodes []*graph.Node) []*graph.Node {
			at := graph.InsertAxes(nodes[2], -1) // [batch] -> [batch, 1]
			return tr.scores(r.Decode(graph.Gather(nodes[0], at)), graph.Gather(nodes[1], at))
		})
		if err != nil {
			return err
		}
		inputs, labels := r.Arrays()
		shape := inputs.Shape().Clone()
		shape.Dimensions[0] /= n
		batch := evaluationBatch(shape)
		for fold := range folds {
			start := fold * shape.Dimensions[0]
			for at, end := start, start+shape.Dimensions[0]; at < end; {
				size := min(batch, end-at)
				indices := make([]int32, size)
				for i := range indices {
					indices[i] = int32(at + i)
				}
				if err := folds[fold].add(ctx, tr, exec, size, inputs, labels, tensors.FromFlatDataAndDimensions(indices, size)); err != nil {
					return err
				}
				at += size
			}
			if err := folds[fold].mean(r); err != nil {
				return err
			}
		}
		return nil
	})
	return folds, err
}

// mean turns sums into means.
func (m *Metrics) mean(ds train.Dataset) error {
	if m.N == 0 {
		return fmt.Errorf("data set %q: %w", ds.Name(), ErrNoData)
	}
	m.Loss /= float64(m.N)
	m.Accuracy /= float64(m.N)
	return nil
}

func (tr *Trainer) evaluateBatches(ctx context.Context, ds train.Dataset, m *Metrics) error {
	exec, err := tr.evaluator(evalKey{}, func(scope *model.Scope, nodes []*graph.Node) []*graph.Node {
		return tr.scores(nodes[0], nodes[1])
	})
	if err != nil {
		return err
	}
	for batch, err := range ds.Iter() {
		if err != nil {
			return err
		}
		if err := usable(ds, batch); err != nil {
			return err
		}
		size := batch.Inputs[0].Shape().Dimensions[0]
		if err := m.add(ctx, tr, exec, size, batch.Inputs[0], batch.Labels[0]); err != nil {
			return err
		}
		if err := batch.Finalize(); err != nil {
			return err
		}
	}
	return nil
}

// scores returns the mean loss and the number of right answers of a batch.
func (tr *Trainer) scores(x, labels *graph.Node) []*graph.Node {
	defer guard.Building()
	tr.store.SetTraining(x.Graph(), false)
	labels = column(labels)
	logits := tr.task.Model(tr.store.RootScope(), x)
	return []*graph.Node{graph.ConvertDType(tr.task.meanLoss(labels, logits), dtypes.Float64), tr.task.correct(labels, logits)}
}

// evaluator returns the executable for a kind of data; it is compiled anew for each size of batch.
func (tr *Trainer) evaluator(key evalKey, build func(*model.Scope, []*graph.Node) []*graph.Node) (*model.Exec, error) {
	if exec := tr.evals[key]; exec != nil {
		return exec, nil
	}
	exec, err := model.NewExec(tr.task.Backend, tr.store, func(scope *model.Scope, nodes []*graph.Node) []*graph.Node {
		defer tr.turn.take()()
		return build(scope, nodes)
	})
	if err != nil {
		return nil, err
	}
	exec.SetMaxCache(-1)
	tr.evals[key] = exec
	return exec, nil
}

// add evaluates one batch and adds its sums.
func (m *Metrics) add(ctx context.Context, tr *Trainer, exec *model.Exec, size int, args ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	results, err := tr.turn.call(tr.task.Backend, exec, args...)
	if err != nil {
		return err
	}
	m.Loss += results[0].Value().(float64) * float64(size)
	m.Accuracy += float64(results[1].Value().(int32))
	m.N += size
	for _, r := range results {
		if err := r.FinalizeAll(); err != nil {
			return err
		}
	}
	return nil
}
