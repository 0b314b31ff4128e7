package surgery

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func TestLeNet5(t *testing.T) {
	b := open(t)
	n, small := prove(t, b, trace.Single(nets.LeNet5), 28, 28, 1)
	want := `/conv1/conv/weights:3: 20 units in /conv1/conv/weights:3, /conv1/conv/biases:0, /conv2/conv/weights:2
/conv2/conv/weights:3: 50 units in /conv2/conv/weights:3, /conv2/conv/biases:0, /fc1/dense/weights:0 ×16
/fc1/dense/weights:1: 500 units in /fc1/dense/weights:1, /fc1/dense/biases:0, /output/dense/weights:0
`
	if diff := cmp.Diff(want, n.String()); diff != "" {
		t.Errorf("groups (-want +got)\n%s", diff)
	}
	if got := n.Cost().Params; got != 431_080 {
		t.Errorf("%d parameters, want 431,080", got)
	}
	sum := 0
	for path := range n.inUse() {
		sum += small.Store.GetVariable(path).Shape().Size()
	}
	if sum != 109_295 {
		t.Errorf("%d parameters at half, want 109,295", sum)
	}
	for _, note := range n.Notes() {
		t.Log(note)
	}
}
