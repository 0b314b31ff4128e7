// Package carry makes networks, tensors and pruners survive from one cell of a notebook to the next. The kernel imports it into cells whose variables
// may hold one; a notebook has no need to. It knows nothing of the kernel: it lists what can be done with which type, in pkg/store's formats.
//
// A network's weights are written only when they changed, and read by the cells that use them.
package carry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/params"
	"github.com/espalier-ml/espalier/pkg/prune"
	"github.com/espalier-ml/espalier/pkg/store/checkpoint"
)

// Kind says how values of a type are saved, loaded and recognised as unchanged. Its fields are those of kernelext/survive.Adapter, which says what each is for.
type Kind struct {
	Type   reflect.Type
	Refs   func(pointer any) []any
	Digest func(pointer any) (string, error)
	Save   func(pointer any, dir string) error
	Load   func(dir string, refs []any) (pointer any, err error)
}

// Kinds lists the types.
func Kinds() []Kind {
	return []Kind{
		{
			Type:   reflect.TypeFor[model.Store](),
			Digest: func(p any) (string, error) { return checkpoint.ImageDigest(p.(*model.Store)) },
			Save:   func(p any, dir string) error { return checkpoint.WriteImage(dir, p.(*model.Store)) },
			Load:   func(dir string, _ []any) (any, error) { return checkpoint.ReadImage(dir) },
		},
		{
			Type:   reflect.TypeFor[tensors.Tensor](),
			Digest: func(p any) (string, error) { return tensorDigest(p.(*tensors.Tensor)) },
			Save: func(p any, dir string) error {
				return inStore(p.(*tensors.Tensor), func(s *model.Store) error { return checkpoint.WriteImage(dir, s) })
			},
			Load: func(dir string, _ []any) (any, error) { return loadTensor(dir) },
		},
		{
			Type:   reflect.TypeFor[prune.Pruner](),
			Refs:   func(p any) []any { return []any{p.(*prune.Pruner).Store()} },
			Digest: func(p any) (string, error) { return prunerDigest(p.(*prune.Pruner)) },
			Save:   func(p any, dir string) error { return savePruner(p.(*prune.Pruner), dir) },
			Load: func(dir string, refs []any) (any, error) {
				if len(refs) != 1 {
					return nil, errors.New("a pruner without its store")
				}
				return loadPruner(dir, refs[0].(*model.Store))
			},
		},
	}
}

// tensorPath is the variable that a tensor is saved as.
const tensorPath = "/tensor"

// inStore hands a store with a tensor as its only variable to use.
func inStore(t *tensors.Tensor, use func(*model.Store) error) error {
	if err := t.CheckValid(); err != nil {
		return fmt.Errorf("this tensor can't be kept: %w", err)
	}
	s := model.NewStore()
	if _, err := s.CreateVariable(tensorPath, t); err != nil {
		return err
	}
	return use(s)
}

func tensorDigest(t *tensors.Tensor) (digest string, err error) {
	err = inStore(t, func(s *model.Store) error {
		digest, err = checkpoint.ImageDigest(s)
		return err
	})
	return digest, err
}

func loadTensor(dir string) (*tensors.Tensor, error) {
	s, err := checkpoint.ReadImage(dir)
	if err != nil {
		return nil, err
	}
	v := s.GetVariable(tensorPath)
	if v == nil {
		return nil, errors.New("there is no tensor in it")
	}
	return v.Value()
}

// pruner is what a pruner is made from, besides its store and the backend.
type pruner struct {
	Set                                params.Set
	Criterion, Unit, Normalize, Budget string
	Revive, KeepMin                    bool
	MinUnits, RoundTo                  int
	Seed                               int64
}

const prunerFile = "pruner.json"

// pruned describes a pruner. Its recipe has to be of the library's parts: a function of the notebook's can't be kept.
func pruned(p *prune.Pruner) (pruner, error) {
	r := p.Recipe()
	d := pruner{p.Given(), r.Criterion.Name, r.Unit.Name, r.Normalize.Name, r.Budget.Name, r.Revive, r.KeepMin, r.MinUnits, r.RoundTo, r.Seed}
	made, err := d.recipe()
	if made = made.Complete(); err == nil && !same(reflect.ValueOf(made), reflect.ValueOf(r)) {
		err = fmt.Errorf("a part of its recipe %q is not the one that this library has under the name", r)
	}
	if err != nil {
		return d, fmt.Errorf("this pruner can't be kept: %w", err)
	}
	return d, nil
}

func (d pruner) recipe() (r prune.Recipe, err error) {
	r = prune.Recipe{Revive: d.Revive, KeepMin: d.KeepMin, MinUnits: d.MinUnits, RoundTo: d.RoundTo, Seed: d.Seed}
	if r.Criterion, err = criteria.find(d.Criterion); err != nil {
		return r, err
	}
	if r.Unit, err = units.find(d.Unit); err != nil {
		return r, err
	}
	if r.Budget, err = budgets.find(d.Budget); err != nil {
		return r, err
	}
	if d.Normalize != "" {
		r.Normalize, err = normalizes.find(d.Normalize)
	}
	return r, err
}

func prunerDigest(p *prune.Pruner) (string, error) {
	d, err := pruned(p)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(d)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

func savePruner(p *prune.Pruner, dir string) error {
	d, err := pruned(p)
	if err != nil {
		return err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, prunerFile), text, 0o600)
}

func loadPruner(dir string, store *model.Store) (*prune.Pruner, error) {
	text, err := os.ReadFile(filepath.Join(dir, prunerFile))
	if err != nil {
		return nil, err
	}
	var d pruner
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	r, err := d.recipe()
	if err != nil {
		return nil, err
	}
	b, err := backend.Open()
	if err != nil {
		return nil, err
	}
	return prune.New(b, store, d.Set, r)
}
