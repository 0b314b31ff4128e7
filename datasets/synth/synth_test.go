package synth

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/metric"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/google/go-cmp/cmp"
)

// The bytes are the same on every machine; a change of these digests changes every run on synthetic data.
func TestSeedGivesTheSameBytes(t *testing.T) {
	small := Config{Train: 40, Validation: 10, Test: 10, Seed: 3}
	digits, err := Digits(small)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := Blobs(BlobsConfig{Config: small})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"49f5dc100793d216", "b654afa5f8cb3afc", "d4d09692a3686bbd", "9e20da5c15584000"}
	got := []string{digits.Train.Digest()[:16], digits.Test.Digest()[:16], blobs.Train.Digest()[:16], blobs.Test.Digest()[:16]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	small.Seed = 4
	other, err := Digits(small)
	if err != nil {
		t.Fatal(err)
	}
	if other.Train.Digest() == digits.Train.Digest() {
		t.Error("two seeds give the same digits")
	}
}

func TestMoreExamplesLeaveTheFirstOnes(t *testing.T) {
	few, err := Digits(Config{Train: 12})
	if err != nil {
		t.Fatal(err)
	}
	more, err := Digits(Config{Train: 20, Test: 7})
	if err != nil {
		t.Fatal(err)
	}
	if few.Train.Digest() != more.Train.Take(12).Digest() || few.Validation.Digest() != more.Validation.Digest() {
		t.Error("the first examples depend on how many there are")
	}
	if few.Train.Take(10).Digest() == few.Validation.Take(10).Digest() {
		t.Error("training and validation part are the same")
	}
}

// distance2 by hand: beside the segment, beyond its end, and for a segment that is a point.
func TestDistance2(t *testing.T) {
	for _, c := range []struct {
		p, a, b point
		want    int
	}{
		{point{5, 3}, point{0, 0}, point{10, 0}, 9},
		{point{13, 4}, point{0, 0}, point{10, 0}, 25},
		{point{-3, -4}, point{0, 0}, point{10, 0}, 25},
		{point{3, 4}, point{0, 0}, point{0, 0}, 25},
	} {
		if got := distance2(c.p, c.a, c.b); got != c.want {
			t.Errorf("distance2(%v, %v, %v) = %d, expected %d", c.p, c.a, c.b, got, c.want)
		}
	}
}

func TestBlobsAreGaussian(t *testing.T) {
	data, err := Blobs(BlobsConfig{Config: Config{Train: 20000}, Classes: 2, Features: 1, Spread: 10})
	if err != nil {
		t.Fatal(err)
	}
	// Half of the examples, in steps of two, are of class 0.
	var sum, squares, inside float64
	var values []float64
	inputs, _ := data.Train.Arrays()
	for i, v := range tensors.MustCopyFlatData[uint8](inputs) {
		if i%2 == 0 {
			values = append(values, float64(v))
		}
	}
	for _, v := range values {
		sum += v
		squares += v * v
	}
	mean := sum / float64(len(values))
	std := math.Sqrt(squares/float64(len(values)) - mean*mean)
	for _, v := range values {
		if math.Abs(v-mean) < std {
			inside++
		}
	}
	if math.Abs(std-10) > 0.3 {
		t.Errorf("standard deviation %.2f, expected 10", std)
	}
	if share := inside / float64(len(values)); math.Abs(share-0.683) > 0.03 {
		t.Errorf("%.1f%% lie within one standard deviation, expected 68%%", 100*share)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for want, open := range map[string]func() (*Data, error){
		"Train from 1":    func() (*Data, error) { return Digits(Config{Train: -1}) },
		"Test from 1":     func() (*Data, error) { return Digits(Config{Train: 1, Validation: 1, Test: math.MaxInt}) },
		"Batch of 1":      func() (*Data, error) { return Digits(Config{Train: 1, Validation: 1, Test: 1, Batch: -5}) },
		"Classes from 2":  func() (*Data, error) { return Blobs(BlobsConfig{Classes: 1}) },
		"Features from 1": func() (*Data, error) { return Blobs(BlobsConfig{Features: 1 << 40}) },
		"Spread from 1":   func() (*Data, error) { return Blobs(BlobsConfig{Spread: 65}) },
	} {
		_, err := open()
		var typed *Error
		if !errors.Is(err, ErrConfig) || !errors.As(err, &typed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected an *Error of kind ErrConfig that says %q", err, want)
		}
	}
}

// accuracy trains a perceptron with one hidden layer of 32 by GoMLX's own loop and returns the share of the test set that it gets right.
func accuracy(t *testing.T, data *Data, epochs int) float64 {
	t.Helper()
	store := model.NewStore()
	if err := store.SetRNGStateFromSeed(1); err != nil {
		t.Fatal(err)
	}
	logits := func(scope *model.Scope, _ any, inputs []*graph.Node) []*graph.Node {
		x := graph.Reshape(inputs[0], inputs[0].Shape().Dimensions[0], -1)
		x = activation.Relu(layers.Dense(scope.In("hidden"), x, true, 32))
		return []*graph.Node{layers.Dense(scope.In("output"), x, true, data.Train.Classes())}
	}
	trainer := train.NewTrainer(gobackend.GetBackend(), store, logits, loss.SparseCategoricalCrossEntropyLogits,
		optimizer.Adam().LearningRate(0.003).Done(), nil, []metric.Interface{metric.NewSparseCategoricalAccuracy("accuracy", "acc")})
	if epochs > 0 {
		if _, err := train.NewLoop(trainer).RunEpochs(data.Train, epochs); err != nil {
			t.Fatal(err)
		}
	}
	metrics, err := trainer.Eval(data.Test) // loss, accuracy
	if err != nil {
		t.Fatal(err)
	}
	return float64(tensors.ToScalar[float32](metrics[1]))
}

func TestASmallPerceptronLearnsThem(t *testing.T) {
	digits, err := Digits(Config{Batch: 32})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := Blobs(BlobsConfig{Config: Config{Train: 1000, Batch: 32}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]*Data{"digits": digits, "blobs": blobs} {
		untrained := accuracy(t, data, 0)
		got := accuracy(t, data, 4)
		if got < 0.95 || untrained > 0.6 {
			t.Errorf("%s: %.1f%% of the test set are right after 4 epochs, expected at least 95%%; %.1f%% before", name, 100*got, 100*untrained)
		}
		t.Logf("%s: %.1f%% before, %.1f%% after 4 epochs", name, 100*untrained, 100*got)
	}
}

func ExampleDigits() {
	data, err := Digits(Config{Train: 100, Validation: 10, Test: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(data.Train)
	picture := data.Train.Image(3)
	for y := 2; y < 28; y += 2 {
		var line strings.Builder
		for x := 4; x < 24; x++ {
			r, _, _, _ := picture.At(x, y).RGBA()
			line.WriteByte(" .+#"[r>>14])
		}
		fmt.Println(strings.TrimRight(line.String(), " "))
	}
	// Output:
	// synthetic digits train: 100 examples, 28x28x1, 10 classes, batch 100
	//
	//      .#++++++#+++
	//               .+#
	//               +++
	//               ++.
	//     ++++++++++++.
	//              .++
	//              +++
	//              +#.
	//   +++++++++++#+.
}
