package survive

import (
	"fmt"
	"os"
	"reflect"
	"testing"
)

// benchmark measures what variables cost the cells that use them: restoring and saving, where they stay as they are and where they change.
func benchmark[T any](b *testing.B, value T, change func(*T, int)) {
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	run := func(v *T, fresh bool) *Program {
		p := &Program{Dir: dir, Vars: []Declared{{Name: "v", Layout: layout(reflect.TypeFor[T]()), Fresh: fresh}}, addresses: vars{Of("v", v)}}
		if err := p.restore(); err != nil {
			b.Fatal(err)
		}
		return p
	}
	if err := run(&value, true).Save(); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		var v T
		p := run(&v, false)
		if change != nil {
			change(&v, i)
		}
		if err := p.Save(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFourMegabytes(b *testing.B) {
	b.Run("read", func(b *testing.B) { benchmark(b, make([]float32, 1<<20), nil) })
	b.Run("changed", func(b *testing.B) {
		benchmark(b, make([]float32, 1<<20), func(v *[]float32, i int) { (*v)[i%len(*v)]++ })
	})
}

func BenchmarkTree(b *testing.B) {
	root := &node{}
	at := []*node{root}
	for i := range 10_000 {
		n := at[i/2]
		child := &node{name: fmt.Sprint(i), parent: n}
		if i%2 == 0 {
			n.left = child
		} else {
			n.right = child
		}
		at = append(at, child)
	}
	benchmark(b, root, nil)
}

func BenchmarkMap(b *testing.B) {
	m := map[string]int{}
	for i := range 10_000 {
		m[fmt.Sprint(i)] = i
	}
	benchmark(b, m, nil)
}
