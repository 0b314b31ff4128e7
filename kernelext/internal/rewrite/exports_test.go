package rewrite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A package of the workspace that is edited between two cells is what the next one is checked against.
func TestEditedPackage(t *testing.T) {
	t.Parallel()
	n := newNotebook(t)
	lib := t.TempDir()
	edit := func(source string) {
		t.Helper()
		for name, text := range map[string]string{"go.mod": "module example.org/lib\n\ngo 1.26\n", "lib.go": "package lib\n\n" + source} {
			if err := os.WriteFile(filepath.Join(lib, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	edit("func F() int { return 1 }\n")
	work, err := os.ReadFile(filepath.Join(n.c.Dir, "go.work"))
	if err != nil {
		t.Fatal(err)
	}
	n.write("go.work", strings.Replace(string(work), "\t.\n", "\t.\n\t"+lib+"\n", 1))
	n.want("import \"fmt\"\nimport \"example.org/lib\"\nvar x = lib.F()\n%%\nfmt.Println(x)", "1")
	edit("func F() string { return \"now a string\" }\n")
	n.want("%%\nfmt.Println(x, lib.F() + \"!\")", "now a string now a string!", "x starts afresh: its type has changed since cell 1")
}

func TestExportsAreBounded(t *testing.T) {
	t.Parallel()
	c := Config{Cache: t.TempDir()}
	for i := range maxExports + 1 {
		path := filepath.Join(c.Cache, fmt.Sprintf("%04d.json", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(time.Duration(i-1000) * time.Minute)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	c.tidy()
	entries, err := os.ReadDir(c.Cache)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != maxExports/2 || entries[0].Name() != fmt.Sprintf("%04d.json", maxExports/2+1) {
		t.Errorf("%d are left, the oldest is %s", len(entries), entries[0].Name())
	}
}
