package backend

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
)

func environment(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestOpenWithEnvironment(t *testing.T) {
	b, choice, err := OpenWith(environment(envBackend, "go"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	if choice.Name != "go" || !strings.Contains(choice.Reason, envBackend) || choice.Warning != "" {
		t.Errorf("choice = %+v", choice)
	}
	if got := graph.MustExecOnce(b, func(x *graph.Node) *graph.Node { return graph.AddScalar(x, 1) }, float32(1)).Value(); got != float32(2) {
		t.Errorf("1 + 1 = %v", got)
	}
}

func TestFallbackSaysSo(t *testing.T) {
	b, choice, err := OpenWith(environment(envPlugins, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	if choice.Name != "go" {
		t.Fatalf("without a plugin: %+v", choice)
	}
	for _, want := range []string{"10 to 30 times slower", "max-pool", "setup"} {
		if !strings.Contains(choice.Warning, want) {
			t.Errorf("warning %q lacks %q", choice.Warning, want)
		}
	}
	if strings.Contains(choice.Warning, "\n") {
		t.Errorf("warning has more than one line: %q", choice.Warning)
	}
}

func TestUnknownBackend(t *testing.T) {
	for _, config := range []string{"nonsense", "xla:cpu"} {
		_, _, err := OpenWith(environment(envBackend, config, envPlugins, t.TempDir()))
		var e *Error
		if !errors.As(err, &e) || e.Backend != config || e.Remedy == "" {
			t.Errorf("%s: got %v, want an *Error with a remedy", config, err)
		}
	}
}

func TestDamagedPlugin(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/"+cpuPlugin, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, choice, err := OpenWith(environment(envPlugins, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	if choice.Name != "go" || choice.Warning == "" {
		t.Errorf("with a damaged plugin: %+v", choice)
	}
}

func TestOpenIsShared(t *testing.T) {
	a, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open()
	if err != nil || a != b {
		t.Errorf("two calls of Open gave two backends (%v)", err)
	}
	choice, err := Describe()
	if err != nil || choice.Name == "" || choice.Reason == "" {
		t.Errorf("Describe = %+v, %v", choice, err)
	}
}
