package checkpoint_test

import (
	"fmt"
	"os"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/store/checkpoint"
)

// A checkpoint holds all variables of a store and says at which step they were. A damaged one is passed over.
func Example() {
	path, err := os.MkdirTemp("", "run-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(path)
	dir := checkpoint.Dir{Path: path, Warn: func(error) { fmt.Println("the newest is damaged: going back to the one before") }}

	store := model.NewStore()
	weights, err := store.CreateVariable("/fc/weights", tensors.FromScalar(float32(0)))
	if err != nil {
		panic(err)
	}
	for step := 1; step <= 3; step++ {
		if err := weights.SetValue(tensors.FromScalar(float32(step) / 2)); err != nil {
			panic(err)
		}
		if err := dir.Save(store, checkpoint.State{Step: step}); err != nil {
			panic(err)
		}
	}
	state, err := dir.Load(store)
	fmt.Println("step", state.Step, weights.MustValue().Value(), err)

	if err := os.Truncate(path+"/step-000000003/variables.safetensors", 20); err != nil {
		panic(err)
	}
	state, err = dir.Load(store)
	fmt.Println("step", state.Step, weights.MustValue().Value(), err)
	// Output:
	// step 3 1.5 <nil>
	// the newest is damaged: going back to the one before
	// step 2 1 <nil>
}
