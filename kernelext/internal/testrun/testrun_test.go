package testrun

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/internal/nbrun"
)

// What go test -json says of a package with a test that passes, one with subtests of which one fails, one that is skipped; of a package that does
// not build; and of one without tests.
const events = `{"Action":"start","Package":"github.com/espalier-ml/espalier/pkg/a"}
{"Action":"run","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestOne"}
{"Action":"pass","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestOne","Elapsed":0.1}
{"Action":"run","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestTwo"}
{"Action":"run","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestTwo/x"}
{"Action":"output","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestTwo/x","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestTwo/x"}
{"Action":"run","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestTwo/y"}
{"Action":"pass","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestTwo/y"}
{"Action":"fail","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestTwo"}
{"Action":"output","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestThree","Output":"a_test.go:3: no GPU\n"}
{"Action":"skip","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestThree"}
{"Action":"fail","Package":"github.com/espalier-ml/espalier/pkg/a","Elapsed":0.2}
{"Action":"output","Package":"github.com/espalier-ml/espalier/pkg/b","Output":"FAIL pkg/b [build failed]\n"}
{"Action":"fail","Package":"github.com/espalier-ml/espalier/pkg/b","Elapsed":0}
{"Action":"skip","Package":"github.com/espalier-ml/espalier/pkg/c","Elapsed":0}
`

func TestCount(t *testing.T) {
	var out bytes.Buffer
	s := &suite{out: &out}
	if err := s.count(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if s.passed != 2 || s.failed != 2 || s.skipped != 1 {
		t.Errorf("%d passed, %d failed, %d skipped; want 2, 2, 1\n%s", s.passed, s.failed, s.skipped, out.String())
	}
	for _, want := range []string{"got 1, want 2", "build failed", "no GPU"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if err := s.close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close = %v, want ErrFailed", err)
	}
	if last := lastLine(out.String()); last != "2 passed, 2 failed, 1 skipped" {
		t.Errorf("the last line is %q", last)
	}
}

// Of a package that dies in a test, what that test has printed is shown.
func TestCountOfAPackageThatDies(t *testing.T) {
	const events = `{"Action":"run","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestOne"}
{"Action":"output","Package":"github.com/espalier-ml/espalier/pkg/a","Test":"TestOne","Output":"no room left\n"}
{"Action":"output","Package":"github.com/espalier-ml/espalier/pkg/a","Output":"FAIL pkg/a 0.021s\n"}
{"Action":"fail","Package":"github.com/espalier-ml/espalier/pkg/a","Elapsed":0.021}
`
	var out bytes.Buffer
	s := &suite{out: &out}
	if err := s.count(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if want := "FAIL pkg/a: no room left\nFAIL pkg/a 0.021s\n"; s.failed != 1 || out.String() != want {
		t.Errorf("%d failed, and it says %q, want %q", s.failed, out.String(), want)
	}
}

func TestARunWithoutTestsFails(t *testing.T) {
	s := &suite{out: &bytes.Buffer{}}
	if err := s.close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close = %v, want ErrFailed", err)
	}
}

func TestNotebookFailuresCount(t *testing.T) {
	s := &suite{out: &bytes.Buffer{}}
	s.notebook("a", nil)
	s.notebook("b", []nbrun.Failure{{Cell: 3, Problem: "a figure lacks image/png"}})
	if s.passed != 1 || s.failed != 1 || !strings.Contains(s.failures[0], "cell 3: a figure lacks image/png") {
		t.Errorf("%d passed, %d failed: %q", s.passed, s.failed, s.failures)
	}
}

func TestTargets(t *testing.T) {
	const list = "?   \tm/none\t[no test files]\nFuzzOne\nFuzzTwo\nok  \tm/a\t0.01s\nok  \tm/b\t0.02s\nsomething that a test printed\nFuzzOne\nok  \tm/c\t0.02s\n"
	want := []target{{"m/a", "FuzzOne"}, {"m/a", "FuzzTwo"}, {"m/c", "FuzzOne"}}
	if got := targets(list); !slices.Equal(got, want) {
		t.Errorf("targets %v, want %v", got, want)
	}
}
