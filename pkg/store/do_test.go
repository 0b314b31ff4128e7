package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type accuracy struct {
	Name   string
	Values []float64
}

// binary has a part that JSON loses, and methods that keep it.
type binary struct{ hidden string }

func (b binary) MarshalBinary() ([]byte, error)  { return []byte(b.hidden), nil }
func (b *binary) UnmarshalBinary(d []byte) error { b.hidden = string(d); return nil }

// twice asks for a result two times and returns what came and how often it was computed.
func twice[T any](t *testing.T, value T) (first, second T, computed int) {
	t.Helper()
	s := fresh(t)
	for _, to := range []*T{&first, &second} {
		got, err := Do(t.Context(), "some/name", Inputs{Recipe: "r", Store: s}, func(context.Context, *Run) (T, error) {
			computed++
			return value, nil
		})
		if err != nil {
			t.Fatalf("%T: %v", value, err)
		}
		*to = got
	}
	if u, _ := s.Usage(); u.Runs != 0 || u.Refs != 1 {
		t.Errorf("%T: usage %+v; want one reference and no run", value, u)
	}
	return first, second, computed
}

func check[T any](t *testing.T, value T) {
	t.Helper()
	first, second, computed := twice(t, value)
	if computed != 1 {
		t.Errorf("%T: computed %d times, want 1", value, computed)
	}
	for _, got := range []T{first, second} {
		if diff := cmp.Diff(value, got, cmp.AllowUnexported(binary{})); diff != "" {
			t.Errorf("%T, -want +got:\n%s", value, diff)
		}
	}
}

func TestDoOfEachKindOfResult(t *testing.T) {
	check(t, 42)
	check(t, "text")
	check(t, []byte{0, 255, 10})
	check(t, accuracy{"lenet", []float64{0.1, math.Pi, math.SmallestNonzeroFloat64}})
	check(t, &accuracy{Name: "pointer"})
	check(t, map[string]int{"a": 1})
	check(t, binary{"kept"})
	check(t, &binary{"kept too"})
	check(t, time.Unix(1, 5).UTC())
}

func TestDoRefusesBeforeComputing(t *testing.T) {
	s, computed := fresh(t), 0
	var argument *ArgumentError
	_, err := Do(t.Context(), "n", Inputs{Store: s}, func(context.Context, *Run) (struct{ lost int }, error) { computed++; return struct{ lost int }{}, nil })
	if !errors.As(err, &argument) || !strings.Contains(err.Error(), "lost") {
		t.Errorf("a type that JSON loses: %v", err)
	}
	f := func(context.Context, *Run) (int, error) { computed++; return 0, nil }
	if _, err := Do(t.Context(), "../n", Inputs{Store: s}, f); !errors.As(err, &argument) {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := Do(t.Context(), "n", Inputs{Store: s, Recipe: math.NaN()}, f); !errors.As(err, &argument) {
		t.Errorf("a recipe that is no JSON: %v", err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Do(done, "n", Inputs{Store: s}, f); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is done: %v", err)
	}
	if computed != 0 {
		t.Errorf("computed %d times", computed)
	}
}

func TestKeys(t *testing.T) {
	s := fresh(t)
	type fields struct{ B, A int }
	base := Inputs{Recipe: fields{2, 1}, Seed: 1 << 62, Data: "d", Code: "c", Versions: map[string]string{"go": "1"}, Store: s}
	key := func(change func(*Inputs)) string {
		in := base
		change(&in)
		r, err := in.resolve()
		if err != nil {
			t.Fatal(err)
		}
		return r.key
	}
	same := key(func(*Inputs) {})
	r, _ := base.resolve()
	if want := `{"code":"c","data":"d","recipe":{"A":1,"B":2},"seed":4611686018427387904,"versions":{"go":"1"}}`; string(r.canonical) != want {
		t.Errorf("canonical inputs\n%s, want\n%s", r.canonical, want)
	}
	if key(func(in *Inputs) { in.Recipe = map[string]int{"B": 2, "A": 1} }) != same {
		t.Error("the order of a recipe's fields changes the key")
	}
	seen := map[string]bool{same: true}
	for i, change := range []func(*Inputs){
		func(in *Inputs) { in.Recipe = fields{1, 2} }, func(in *Inputs) { in.Seed++ }, func(in *Inputs) { in.Data = "" },
		func(in *Inputs) { in.Code = "" }, func(in *Inputs) { in.Versions = nil }, func(in *Inputs) { in.Versions = map[string]string{} },
	} {
		if k := key(change); seen[k] {
			t.Errorf("change %d does not change the key", i)
		} else {
			seen[k] = true
		}
	}
	if v := theseVersions(); v["go"] == "" || v["platform"] == "" {
		t.Errorf("versions %v", v)
	}
	info := &debug.BuildInfo{GoVersion: "go1", Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "false"}}}
	if code := revisionOf(info); !strings.HasPrefix(code, "revision abc build ") {
		t.Errorf("code %q", code)
	}
	info.Deps = []*debug.Module{{Path: "m", Version: "v1", Replace: &debug.Module{Path: "../m"}}}
	if code := revisionOf(info); code != "" {
		t.Errorf("with a directory for a module the code is %q", code)
	}
	info.Deps, info.Settings[1].Value = nil, "true"
	if code := revisionOf(info); code != "" {
		t.Errorf("with changed files the code is %q", code)
	}
}

// A program in which something else is computed has another code, and one that is built again the same.
func TestBuildID(t *testing.T) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command")
	}
	dir := t.TempDir()
	ids := map[string]string{}
	for name, text := range map[string]string{"one": "1", "again": "1", "two": "2"} {
		source, program := filepath.Join(dir, name, "main.go"), filepath.Join(dir, name+".program")
		if err := errors.Join(os.MkdirAll(filepath.Dir(source), 0o755), os.WriteFile(source, []byte("package main\n\nfunc main() { println("+text+") }\n"), 0o644),
			os.WriteFile(filepath.Join(dir, name, "go.mod"), []byte("module x\n\ngo 1.26\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		build := exec.Command(goCommand, "build", "-trimpath", "-o", program)
		build.Dir, build.Env = filepath.Dir(source), append(os.Environ(), "GOFLAGS=", "GOOS=linux")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err := exec.Command(goCommand, "tool", "buildid", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		if ids[name] = buildID(program); ids[name] == "" || ids[name] != strings.TrimSpace(string(out)) {
			t.Errorf("%s: %q, the go command says %q", name, ids[name], out)
		}
	}
	if ids["one"] != ids["again"] || ids["one"] == ids["two"] {
		t.Errorf("%v", ids)
	}
	for _, path := range []string{filepath.Join(dir, "one", "main.go"), filepath.Join(dir, "none")} {
		if id := buildID(path); id != "" {
			t.Errorf("%s has the identity %q", path, id)
		}
	}
}

func TestOneNameManyKeys(t *testing.T) {
	s := fresh(t)
	for seed := range int64(3) {
		if _, err := Do(t.Context(), "n", Inputs{Seed: seed, Store: s}, func(context.Context, *Run) (int64, error) { return seed, nil }); err != nil {
			t.Fatal(err)
		}
	}
	refs, err := s.Refs()
	if err != nil || len(refs) != 3 || !strings.Contains(string(refs[0].Inputs), `"seed":2`) {
		t.Errorf("references %+v, %v; want 3, that of seed 2 first", refs, err)
	}
}

func TestInterruptAndResume(t *testing.T) {
	s := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	var runs []Run
	fn := func(ctx context.Context, run *Run) (string, error) {
		runs = append(runs, *run)
		file := filepath.Join(run.Dir, "state")
		before, _ := os.ReadFile(file)
		if err := os.WriteFile(file, append(before, 'x'), 0o644); err != nil {
			return "", err
		}
		switch len(runs) {
		case 1:
			cancel()
			return "half", ctx.Err()
		case 2:
			panic("by hand")
		case 3:
			return "", os.ErrDeadlineExceeded
		}
		return string(before), nil
	}
	if half, err := Do(ctx, "n", Inputs{Store: s}, fn); !errors.Is(err, context.Canceled) || half != "half" {
		t.Errorf("interrupted: %q, %v", half, err)
	}
	var panicked *PanicError
	if _, err := Do(t.Context(), "n", Inputs{Store: s}, fn); !errors.As(err, &panicked) || panicked.Value != "by hand" || !strings.Contains(panicked.Stack, "TestInterruptAndResume") {
		t.Errorf("a panic: %v", err)
	}
	if _, err := Do(t.Context(), "n", Inputs{Store: s}, fn); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an error: %v", err)
	}
	for range 2 {
		if got, err := Do(t.Context(), "n", Inputs{Store: s}, fn); err != nil || got != "xxx" {
			t.Errorf("resumed: %q, %v; want what the three attempts before had written", got, err)
		}
	}
	for i, run := range runs {
		if run.Attempt != i+1 || run.Resumed != (i > 0) || run.Dir != runs[0].Dir {
			t.Errorf("attempt %d: %+v", i+1, run)
		}
	}
	if entries, _ := os.ReadDir(s.path(workDir)); len(runs) != 4 || len(entries) != 0 {
		t.Errorf("%d runs, and left is %v; want 4 and nothing", len(runs), entries)
	}
}

func TestDamagedResultIsComputedAgain(t *testing.T) {
	s := fresh(t)
	var said bytes.Buffer
	s.stderr = &said
	n := 0
	get := func() {
		t.Helper()
		if v, err := Do(t.Context(), "n", Inputs{Store: s}, func(context.Context, *Run) (string, error) { n++; return "value", nil }); err != nil || v != "value" {
			t.Errorf("got %q, %v", v, err)
		}
	}
	get()
	refs, _ := s.Refs()
	for i, rel := range []string{refs[0].Object.rel(), refs[0].rel()} {
		said.Reset()
		if err := os.WriteFile(s.path(rel), []byte(`"other"`), 0o644); err != nil {
			t.Fatal(err)
		}
		get()
		if n != i+2 || strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), "n is computed again") || !strings.Contains(said.String(), "quarantine") {
			t.Errorf("damage to %s: computed %d times, said %q; want one line", rel, n, said.String())
		}
	}
	if err := os.Remove(s.path(refs[0].Object.rel())); err != nil {
		t.Fatal(err)
	}
	said.Reset()
	if get(); n != 4 || !strings.Contains(said.String(), "not in the store") {
		t.Errorf("a missing object: computed %d times, said %q", n, said.String())
	}
	said.Reset()
	if get(); n != 4 || said.Len() != 0 {
		t.Errorf("a whole result: computed %d times, said %q", n, said.String())
	}
	var argument *ArgumentError
	if _, err := Do(t.Context(), "n", Inputs{Store: s}, func(context.Context, *Run) (int, error) { n++; return 1, nil }); !errors.As(err, &argument) || n != 4 {
		t.Errorf("a result of another type: %v", err)
	}
}

func TestGoroutinesComputeOnce(t *testing.T) {
	s := fresh(t)
	var mu sync.Mutex
	n := 0
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for seed := range int64(4) {
				v, err := Do(t.Context(), "n", Inputs{Seed: seed, Store: s}, func(context.Context, *Run) (int64, error) {
					mu.Lock()
					defer mu.Unlock()
					n++
					return seed, nil
				})
				if err != nil || v != seed {
					t.Errorf("seed %d: %d, %v", seed, v, err)
				}
			}
		})
	}
	all.Wait()
	if n != 4 {
		t.Errorf("computed %d times, want 4", n)
	}
}

func TestWaitingRespectsTheContext(t *testing.T) {
	s := fresh(t)
	_, err := Do(t.Context(), "n", Inputs{Store: s}, func(context.Context, *Run) (int, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := Do(ctx, "n", Inputs{Store: s}, func(context.Context, *Run) (int, error) { return 0, errors.New("computed beside another") })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one that waits: %v", err)
		}
		return 1, nil
	})
	if err != nil {
		t.Error(err)
	}
}

func BenchmarkDoLoads1MB(b *testing.B) {
	s := fresh(b)
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		got, err := Do(b.Context(), "n", Inputs{Store: s}, func(context.Context, *Run) ([]byte, error) { return value, nil })
		if err != nil || len(got) != len(value) {
			b.Fatal(len(got), err)
		}
	}
}

func ExampleDo() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		panic(err)
	}
	type recipe struct {
		Criterion string
		Sparsity  float64
	}
	for range 2 {
		accuracy, err := Do(context.Background(), "lenet/taylor", Inputs{Recipe: recipe{"taylor", 0.9}, Seed: 1, Store: s},
			func(ctx context.Context, run *Run) (float64, error) {
				fmt.Println("training, attempt", run.Attempt)
				return 0.97, nil
			})
		fmt.Println(accuracy, err)
	}
	// Output:
	// training, attempt 1
	// 0.97 <nil>
	// 0.97 <nil>
}
