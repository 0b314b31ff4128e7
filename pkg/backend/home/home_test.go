package home

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDir(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"own variable first", map[string]string{Env: "/a", "XDG_DATA_HOME": "/b", "HOME": "/c"}, "/a"},
		{"own variable, made absolute", map[string]string{Env: "a"}, filepath.Join(here, "a")},
		{"XDG", map[string]string{"XDG_DATA_HOME": "/b", "HOME": "/c"}, "/b/espalier"},
		{"a relative XDG path is ignored", map[string]string{"XDG_DATA_HOME": "b", "HOME": "/c"}, "/c/.local/share/espalier"},
		{"home", map[string]string{"HOME": "/c"}, "/c/.local/share/espalier"},
	} {
		got, err := dir(func(k string) string { return test.env[k] })
		if err != nil || got != test.want {
			t.Errorf("%s: dir = %q, %v; want %q", test.name, got, err, test.want)
		}
	}
	if _, err := dir(func(string) string { return "" }); !errors.Is(err, ErrNoHome) {
		t.Errorf("without any variable: got %v, want ErrNoHome", err)
	}
}

func TestSubdirectories(t *testing.T) {
	t.Setenv(Env, "/a")
	for want, f := range map[string]func() (string, error){"/a/pjrt": PluginDir, "/a/cache": CacheDir} {
		if got, err := f(); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}
