package randomnet

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/trace"
)

// Every network can be built in both phases, is the same for its seed, and together they have all moves.
func TestNetworks(t *testing.T) {
	b, err := backend.Open()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	call := regexp.MustCompile(`[a-zA-Z]+(\(|\))`)
	for seed := range uint64(400) {
		n := New(seed)
		if diff := cmp.Diff(n.String(), New(seed).String()); diff != "" {
			t.Fatalf("seed %d makes two networks:\n%s", seed, diff)
		}
		for _, training := range []bool{false, true} {
			if _, err := trace.Record(b, model.NewStore(), n.Model, trace.Config{Training: training}, n.Input(2)); err != nil {
				t.Fatalf("%v\n%s", err, n)
			}
		}
		for _, name := range call.FindAllString(n.String(), -1) {
			seen[strings.TrimRight(name, "()")]++
		}
	}
	want := strings.Fields("conv groupConv transposedConv channelsFirstConv convOverTime pool squeezeExcite pixelShuffle spaceToDepth upsample again turn dense reshape flatten " +
		"reduceMean reduceMax reduceSum globalMaxPool batchNorm layerNorm rmsNorm groupNorm relu gelu sigmoid softplus add mul max sub concatenate zeros dropout shuffle reverse pad maxout scale " +
		"softmax div stopGradient attention flatAttention linearAttention mixPlaces positions swiGLU lstm bilinear")
	for _, name := range want {
		if seen[name] < 3 {
			t.Errorf("%s is in %d networks of 400, want 3 and more", name, seen[name])
		}
	}
}

func ExampleNet_String() {
	fmt.Print(New(3))
	// Output:
	// // randomnet.New(3), Float64
	// v0 := input // [4 7]
	// v1 := dense(v0, 16, bias false) // [4 16]
	// v2 := flatAttention(v1, heads 3 of 2, out 7) // [4 7]
	// v3 := flatten(v2) // [28]
	// v4 := reverse(v3, -1) // [28]
	// v5 := batchNorm(v4, backend true, gain true) // [28]
	// v6 := batchNorm(v5, backend true, gain true) // [28]
	// v7 := tanh(v6) // [28]
	// v8 := dense(v7, 5, bias true) // [5]
	// v9 := dense(v0, 2, bias true) // [4 2]
	// return v8, v9
}
