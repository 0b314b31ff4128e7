// Package survive carries a notebook's variables from one cell's program to the next. The kernel's Go command links it into each cell; a notebook has
// no need to import it. What a type has to do so that its values survive is kernelext.Keeper.
//
// A program begins with Begin, which gives its variables the values that the last program left, before any of its own initialisers run, and ends with
// Save. Values are taken as they lie in memory: two variables that point to one object do so again in the next program, a slice of a slice shares its
// elements, a cycle is a cycle. Variables that share memory lie in one file, named by the digest of what it holds, so that what did not change is not written again.
//
// # What can't be kept
//
// Channels, functions, and structs of other packages that hide fields, unless they marshal themselves (encoding.BinaryMarshaler, gob.GobEncoder), present
// themselves (Keeper), or are zero. A variable that holds one is evaluated again by the next program.
//
// This package is linked into every cell, so it imports little.
package survive
