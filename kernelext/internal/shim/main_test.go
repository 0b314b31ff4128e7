package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArguments(t *testing.T) {
	for _, test := range []struct{ args, want []string }{
		{[]string{"get"}, nil},
		{[]string{"get", "-u", "x"}, nil},
		{[]string{"build", "-o", "bin"}, []string{"build", "-ldflags=-s -w", "-buildvcs=false", "-o", "bin"}},
		{[]string{"test", "-c"}, []string{"test", "-ldflags=-s -w", "-buildvcs=false", "-c"}},
		{[]string{"build", "--ldflags=-X a=b", "."}, []string{"build", "-buildvcs=false", "--ldflags=-X a=b", "."}},
		{[]string{"env", "GOROOT"}, []string{"env", "GOROOT"}},
		{[]string{}, []string{}},
	} {
		if diff := cmp.Diff(test.want, arguments(test.args)); diff != "" {
			t.Errorf("arguments(%q) (-want +got):\n%s", test.args, diff)
		}
	}
}

func TestCell(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	here, err := os.Getwd() // without links
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tmp  string
		args []string
		want bool
	}{
		{here, []string{"build", "-o", "bin"}, true},
		{here, []string{"test", "-c", "-o", "bin"}, true},
		{here, []string{"run", "."}, false},
		{here, []string{"build", "other.go"}, false},
		{here, []string{"build", "-overlay=mine.json"}, false},
		{here, nil, false},
		{"", []string{"build"}, false},
		{filepath.Dir(here), []string{"build"}, false},
	} {
		t.Setenv("GONB_TMP_DIR", c.tmp)
		if _, got := cell(c.args); got != c.want {
			t.Errorf("in %q, cell(%q) = %v, want %v", c.tmp, c.args, got, c.want)
		}
	}
}

func TestRemedy(t *testing.T) {
	output := "main.go:4:2: no required module provides package github.com/a/b; to add it:\n\tgo get github.com/a/b\n" +
		"main.go:5:2: no required module provides package github.com/a/b; to add it:\n"
	got := remedy(output)
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, "github.com/a/b@VERSION") {
		t.Errorf("remedy = %q, want one line that names the module", got)
	}
	if got := remedy("undefined: x"); got != "" {
		t.Errorf("remedy of another error = %q", got)
	}
}
