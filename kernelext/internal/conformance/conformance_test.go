package conformance

import (
	"errors"
	"testing"
)

func TestClassify(t *testing.T) {
	for output, want := range map[string]Outcome{
		"pass\n":                        Pass,
		"noise\nskip\n":                 Skip,
		"AssertionError: 1 != 2\nfail":  Fail,
		"_queue.Empty\nfail\n":          Hang,
		"TimeoutError: Timeout\nfail\n": Hang,
	} {
		if got, _, err := classify(output, nil); got != want || err != nil {
			t.Errorf("classify(%q) = %q, %v; want %q", output, got, err, want)
		}
	}
	for _, output := range []string{"", "Traceback …\nModuleNotFoundError: x"} {
		if _, _, err := classify(output, errors.New("exit status 1")); err == nil {
			t.Errorf("classify(%q) gave no error: a suite that did not run must not count", output)
		}
	}
}

func TestBetterThanExpectedIsUnexpected(t *testing.T) {
	if (Result{Want: Fail, Got: Pass}).Met() || (Result{Want: Pass, Got: Fail}).Met() || !(Result{Want: Hang, Got: Hang}).Met() {
		t.Error("Met must hold for what is expected, and for nothing else")
	}
}

func TestEveryExceptionHasItsReason(t *testing.T) {
	for _, e := range expectations {
		if (e.want == Pass) != (e.reason == "") {
			t.Errorf("%s: expected %s, reason %q", e.test, e.want, e.reason)
		}
	}
}
