package kernelext

import "github.com/espalier-ml/espalier/kernelext/survive"

// Keeper is a value that survives from one cell to the next by presenting itself: it is too big to be copied field by field, or holds what can't be
// copied, such as a connection. Pointers to structs implement it. All other values of a notebook's variables survive by themselves, except for channels,
// functions, and structs of other packages that hide fields; those are evaluated again by each cell that uses them.
//
//	type Corpus struct{ path string; index map[string][]int; file *os.File }
//
//	func (c *Corpus) KeepDigest() (string, error) { return c.path, nil }
//	func (c *Corpus) KeepSave(dir string) error   { return os.WriteFile(filepath.Join(dir, "path"), []byte(c.path), 0o600) }
//	func (c *Corpus) KeepLoad(dir string) error   { … opens the file and reads the index again … }
type Keeper = survive.Keeper

// Referrer is a Keeper that refers to other values that survive as well.
type Referrer = survive.Referrer
