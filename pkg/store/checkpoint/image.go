package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gomlx/gomlx/ml/model"
)

// An image is a store as a whole, for the next program of the same user: the files of a checkpoint, and what a checkpoint leaves to the model function, which
// are the order of the variables and the hyperparameters. Unlike a checkpoint it is not forced to the disk, which takes longer than all else, so it is
// for what can be had again.
type image struct {
	Order  []string         `json:"order"`
	Params map[string]param `json:"params,omitempty"`
}

// imageState is what a checkpoint has in state.json, with one digest for the whole file of tensors: it is written in one go.
type imageState struct {
	State
	Trainable []string        `json:"trainable"`
	Masks     map[string]bits `json:"masks,omitempty"`
	Tensors   string          `json:"tensors"`
}

// param is a hyperparameter of one of the types that JSON does not tell apart.
type param struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value"`
}

// ErrImage says that a store has something that an image can't hold.
var ErrImage = errors.New("this store can't be kept")

// imageOf describes a store.
func imageOf(store *model.Store) (*content, []byte, error) {
	if store.Loader() != nil {
		return nil, nil, fmt.Errorf("%w: it loads its variables on demand", ErrImage)
	}
	var i image
	for v := range store.IterVariables() {
		if !v.HasValue() {
			return nil, nil, fmt.Errorf("%w: variable %s has no value yet; initialise it", ErrImage, v.Path())
		}
		i.Order = append(i.Order, v.Path())
	}
	for path, value := range store.IterParams() {
		p, err := paramOf(value)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: hyperparameter %s: %w", ErrImage, path, err)
		}
		if i.Params == nil {
			i.Params = map[string]param{}
		}
		i.Params[path] = p
	}
	c, err := borrow(store)
	if err != nil {
		return nil, nil, err
	}
	extra, err := json.Marshal(i)
	return c, extra, err
}

// ImageDigest returns the digest of all that WriteImage writes of a store.
func ImageDigest(store *model.Store) (string, error) {
	c, extra, err := imageOf(store)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := c.write(sum); err != nil {
		return "", err
	}
	rest, err := json.Marshal(imageState{State{Extra: extra}, c.trainable, c.masks, ""})
	if err != nil {
		return "", err
	}
	sum.Write(rest)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// WriteImage writes a store into a directory that is there and empty.
func WriteImage(dir string, store *model.Store) (err error) {
	c, extra, err := imageOf(store)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, tensorsFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	if err := errors.Join(c.write(io.MultiWriter(f, sum)), f.Close()); err != nil {
		return err
	}
	text, err := json.Marshal(imageState{State{Extra: extra}, c.trainable, c.masks, hex.EncodeToString(sum.Sum(nil))})
	if err != nil {
		return err
	}
	digest := sha256.Sum256(text)
	if text, err = json.Marshal(envelope{version, hex.EncodeToString(digest[:]), text}); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, stateFile), text, 0o600)
}

// ReadImage returns the store that WriteImage wrote. The error is a *FileError for files that are damaged.
func ReadImage(dir string) (*model.Store, error) {
	s, values, err := read(dir)
	if err != nil {
		return nil, err
	}
	damaged := func(problem string) error { return &FileError{filepath.Join(dir, stateFile), problem, nil} }
	var i image
	if err := json.Unmarshal(s.Extra, &i); err != nil {
		return nil, damaged("it is no image of a store")
	}
	store := model.NewStore()
	for _, path := range i.Order {
		value := values[path]
		if value == nil {
			return nil, damaged(fmt.Sprintf("variable %q has no value", path))
		}
		delete(values, path)
		v, err := store.CreateVariable(path, value)
		if err != nil {
			return nil, err
		}
		v.SetTrainable(false)
	}
	if len(values) > 0 {
		return nil, damaged("it lists fewer variables than there are")
	}
	for _, path := range s.Trainable {
		v := store.GetVariable(path)
		if v == nil {
			return nil, damaged(fmt.Sprintf("variable %q has no value", path))
		}
		v.SetTrainable(true)
	}
	for path, p := range i.Params {
		value, err := p.value()
		if err != nil {
			return nil, damaged(fmt.Sprintf("hyperparameter %q: %v", path, err))
		}
		store.SetParam(path, value)
	}
	return store, nil
}

// paramTypes are the types of hyperparameters that can be kept, by name.
var paramTypes = map[string]func(text []byte) (any, error){
	"bool": parse[bool], "int": parse[int], "int64": parse[int64], "float32": parse[float32], "float64": parse[float64], "string": parse[string],
	"[]int": parse[[]int], "[]float64": parse[[]float64], "[]string": parse[[]string],
}

func parse[T any](text []byte) (any, error) {
	var value T
	err := json.Unmarshal(text, &value)
	return value, err
}

func paramOf(value any) (param, error) {
	p := param{Type: fmt.Sprintf("%T", value)}
	if paramTypes[p.Type] == nil {
		return p, fmt.Errorf("it is a %s, which can't be kept", p.Type)
	}
	var err error
	p.Value, err = json.Marshal(value)
	return p, err
}

func (p param) value() (any, error) {
	parse := paramTypes[p.Type]
	if parse == nil {
		return nil, fmt.Errorf("type %q", p.Type)
	}
	return parse(p.Value)
}
