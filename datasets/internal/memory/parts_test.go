package memory

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

func TestPartsOpen(t *testing.T) {
	var p Parts
	p.Train, p.Validation = HoldOut(numbered(7), 2)
	p.Test = numbered(4)
	p.Test.Part = "test"
	s, err := p.Open(3, 11)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{s.Train.String(), s.Validation.String(), s.Test.String()}
	want := []string{
		"numbers train: 5 examples, 1x2x1, 3 classes, batch 3",
		"numbers validation: 2 examples, 1x2x1, 3 classes, batch 2",
		"numbers test: 4 examples, 1x2x1, 3 classes, batch 4",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if s.Train.Seed() != 11 || len(s.Train.Order(0)) != 3 {
		t.Errorf("seed %d, %d examples in an epoch; expected 11 and one whole batch of 3", s.Train.Seed(), len(s.Train.Order(0)))
	}
	if s.Validation.Label(0) != 5%3 || len(s.Validation.Order(0)) != 2 {
		t.Errorf("the validation part begins with label %d and has %d examples", s.Validation.Label(0), len(s.Validation.Order(0)))
	}
	if _, err := p.Open(-1, 0); !errors.Is(err, fault.ErrConfig) {
		t.Errorf("a batch of -1: %v, expected ErrConfig", err)
	}
	p.Test.Labels = nil
	if _, err := p.Open(0, 0); !errors.Is(err, fault.ErrFormat) {
		t.Errorf("a part without labels: %v, expected ErrFormat", err)
	}
}
