package result

import (
	"encoding/json"
	"errors"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/google/go-cmp/cmp"
)

// shown is what the kernel reads after Show.
func shown(t *testing.T, values ...any) map[string]any {
	t.Helper()
	path := filepath.Join(t.TempDir(), "result")
	t.Setenv(file, path)
	Show(values...)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Data, Metadata map[string]any }
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return got.Data
}

func TestSeveralValues(t *testing.T) {
	no := errors.New("no")
	for _, c := range []struct {
		values []any
		want   any
	}{
		{[]any{12, nil}, "12"},
		{[]any{0, no}, "0, no"},
		{[]any{nil, no}, "nil, no"},
		{[]any{1, "a", true}, `1, "a", true`},
		{[]any{card{data: map[string]any{"text/plain": "rich"}}, nil}, "rich"},
		{[]any{nil, nil}, nil},
	} {
		if got := shown(t, c.values...)["text/plain"]; got != c.want {
			t.Errorf("%v: shown as %v, want %v", c.values, got, c.want)
		}
	}
}

type card struct {
	data map[string]any
	err  error
}

func (c card) MIMEBundle() (map[string]any, error) { return c.data, c.err }

func TestTexts(t *testing.T) {
	long := make([]int, 1000)
	var missing *time.Location
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"number", 2, "2"},
		{"string", "a \"b\"", `"a \"b\""`},
		{"text", "a\nb\n", "a\nb"},
		{"error", errors.New("no"), "no"},
		{"Stringer", time.Second, "1s"},
		{"nil Stringer", missing, "UTC"},
		{"struct", struct{ A, B any }{1, nil}, "{A:1 B:<nil>}"},
		{"slice", []string{"a", "b"}, "[a b]"},
		{"long slice", long, "[0 0 0 0 0 0 0 0 0 0 … (1000 elements of int)"},
		{"map", map[string]int{"b": 2, "a": 1}, "map[a:1 b:2]"},
		{"function", strings.ToUpper, "func(string) string"},
		{"control characters", "\x00\x1b", `"\x00\x1b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(map[string]any{"text/plain": c.want}, shown(t, c.value)); diff != "" {
				t.Errorf("forms (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNilShowsNothing(t *testing.T) {
	var err error
	if got := shown(t, err); got != nil {
		t.Errorf("a nil error shows %v, want nothing", got)
	}
}

func TestDisplayer(t *testing.T) {
	got := shown(t, card{data: map[string]any{
		"text/plain": "a card\n\t\"\\\x01\xff", "image/png": []byte{1, 2, 3}, "application/json": map[string]any{"x": []any{1, 2.5, true, nil, "é", []string{"s"}, int64(3), math.Inf(1)}},
	}})
	want := map[string]any{
		"text/plain": "a card\n\t\"\\\x01\ufffd", "image/png": "AQID", "application/json": map[string]any{"x": []any{1.0, 2.5, true, nil, "é", []any{"s"}, 3.0, nil}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("forms (-want +got):\n%s", diff)
	}
}

func TestWhatCannotBeShownSaysSo(t *testing.T) {
	if diff := cmp.Diff(map[string]any{"text/plain": "cannot show result.card: two lengths"}, shown(t, card{err: errors.New("two lengths")})); diff != "" {
		t.Errorf("forms (-want +got):\n%s", diff)
	}
}

func TestFormsOfOthers(t *testing.T) {
	Forms = append(Forms, func(v any) (map[string]any, map[string]any, error) {
		if _, ok := v.(iter.Seq[int]); ok {
			return map[string]any{"text/plain": "a sequence"}, nil, nil
		}
		return nil, nil, nil
	})
	defer func() { Forms = Forms[:len(Forms)-1] }()
	if got := shown(t, iter.Seq[int](nil)); got["text/plain"] != "a sequence" {
		t.Errorf("shown %v, want the form that was added", got)
	}
	if got := shown(t, 1); got["text/plain"] != "1" {
		t.Errorf("shown %v, want 1", got)
	}
}

func TestTensor(t *testing.T) {
	got := shown(t, tensors.FromValue([][]float32{{1, 2, 3}, {4, 5, 6}}))["text/plain"]
	if want := "(Float32)[2, 3]\n[[1 2 3] [4 5 6]]"; got != want {
		t.Errorf("a small tensor is shown as %q, want %q", got, want)
	}
	large := make([]float32, 1000)
	large[0], large[999] = -1, 3
	got, _ = shown(t, tensors.FromValue(large))["text/plain"].(string)
	if want := "(Float32)[1000]: from -1 to 3, mean 0.002, 99.8% zeros\n"; !strings.HasPrefix(got.(string), want) || len(got.(string)) > 200 {
		t.Errorf("a large tensor is shown as %q, want it to begin with %q", got, want)
	}
}

func TestNetwork(t *testing.T) {
	store := model.NewStore()
	for path, dims := range map[string][]int{"/hidden/weights": {784, 300}, "/hidden/<b>": {300}} {
		store.VariableWithValue(path, tensors.FromShape(shapes.Make(dtypes.Float32, dims...)))
	}
	store.VariableWithValue("/step", int64(3)).SetTrainable(false)
	got := shown(t, store)
	want := `A network of 235500 parameters in 2 variables, and 1 more that are not trained
variable         shape                parameters
/hidden/<b>      (Float32)[300]              300
/hidden/weights  (Float32)[784, 300]      235200`
	if diff := cmp.Diff(want, got["text/plain"]); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if html := got["text/html"].(string); !strings.Contains(html, "/hidden/&lt;b&gt;") || !strings.Contains(html, "235200") {
		t.Errorf("HTML lacks its rows, or does not escape them:\n%s", html)
	}
}
