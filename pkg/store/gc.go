package store

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Usage says what a store holds.
type Usage struct {
	Objects, Refs, Runs int   // Runs: not finished, running or resumable
	Quarantined         int   // files and directories
	Bytes               int64 // of all files
	ObjectBytes         int64
	RunBytes            int64
	QuarantineBytes     int64
}

// Usage counts what the store holds; it reads no object.
func (s *Store) Usage() (Usage, error) {
	u := Usage{Bytes: sizeOf(s.dir), RunBytes: sizeOf(s.path(workDir)), QuarantineBytes: sizeOf(s.path(quarantineDir))}
	objects, _, err := s.objects()
	if err != nil {
		return Usage{}, err
	}
	u.Objects = len(objects)
	for _, size := range objects {
		u.ObjectBytes += size
	}
	refs, err := s.Refs()
	u.Refs = len(refs)
	u.Runs = len(s.runs())
	aside, _ := fs.ReadDir(s.root.FS(), quarantineDir)
	u.Quarantined = len(aside)
	return u, err
}

// objects returns the size of each object, and the paths of what else lies among them.
func (s *Store) objects() (map[Digest]int64, []string, error) {
	found, strange := map[Digest]int64{}, []string(nil)
	err := fs.WalkDir(s.root.FS(), objectsDir, func(rel string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		digest := Digest(strings.ReplaceAll(strings.TrimPrefix(rel, objectsDir+"/"), "/", ""))
		if digest.check() != nil || digest.rel() != rel || !d.Type().IsRegular() {
			strange = append(strange, rel)
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			found[digest] = info.Size()
		}
		return err
	})
	return found, strange, err
}

// runs returns the identities of the runs that have a directory or a lock.
func (s *Store) runs() []string {
	entries, _ := fs.ReadDir(s.root.FS(), workDir)
	var ids []string
	for _, e := range entries {
		if id := strings.TrimSuffix(e.Name(), ".lock"); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Report is what Verify found.
type Report struct {
	Objects, Refs int             // whole ones
	Bytes         int64           // of the whole objects
	Damaged       []*DamagedError // objects and references, each moved aside
	Dangling      []Ref           // their object is missing or damaged
	Unreferenced  int             // objects that no reference names; GC removes them
	Strange       []string        // files that the store did not write, by path
}

// Verify reads every reference and object and compares its digest. What is damaged is moved to quarantine, and can be computed or imported again.
//
// Errors: that of ctx or of reading; the report is of what was read until then.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	var r Report
	if err := s.settle(); err != nil {
		return r, err
	}
	refs, damaged, err := s.scan()
	if err != nil {
		return r, err
	}
	for _, e := range damaged {
		rel, err := filepath.Rel(s.dir, e.Path)
		if err != nil {
			return r, err
		}
		s.setAside(e, filepath.ToSlash(rel))
	}
	r.Refs, r.Damaged = len(refs), damaged
	objects, strange, err := s.objects()
	if err != nil {
		return r, err
	}
	for _, rel := range strange {
		r.Strange = append(r.Strange, s.path(rel))
	}
	named := map[Digest]bool{}
	for _, ref := range refs {
		named[ref.Object] = true
	}
	for _, d := range sortedDigests(objects) {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		err := s.check(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			e, _ := errors.AsType[*DamagedError](s.damagedObject(d, err.Error()))
			r.Damaged = append(r.Damaged, e)
			continue
		}
		r.Objects, r.Bytes = r.Objects+1, r.Bytes+objects[d]
		if !named[d] {
			r.Unreferenced++
		}
	}
	for _, ref := range refs {
		if info, err := s.root.Stat(ref.Object.rel()); err != nil || info.Size() != ref.Size {
			r.Dangling = append(r.Dangling, ref)
		}
	}
	return r, nil
}

func sortedDigests(objects map[Digest]int64) []Digest {
	var ds []Digest
	for d := range objects {
		ds = append(ds, d)
	}
	slices.Sort(ds)
	return ds
}

// Collected is what GC removed.
type Collected struct {
	Objects int   // with and without a reference
	Litter  int   // of programs that were killed
	Aside   int   // damaged files in quarantine
	Runs    int   // the work of runs that no program goes on with now
	Refs    []Ref // the least recently bound first
	Bytes   int64 // in all
	Left    int64 // bytes that the store has now
}

// GC removes the objects that no reference names and what killed programs left. While the store has more than max bytes then, it removes, in this order,
// what was found damaged, the work of interrupted runs, and the references bound longest ago with their objects. A negative max is no limit. What
// a running Do holds is never removed, so that more than max may be left. The order is by the store's counter; no clock is asked.
//
// Errors: *DamagedError where a reference is damaged, because its object would seem to have no name: nothing was removed, and Verify moves it aside;
// *WriteError; that of ctx. What was removed until an error is in Collected.
func (s *Store) GC(ctx context.Context, max int64) (Collected, error) {
	var c Collected
	unlock, err := s.lock()
	if err != nil {
		return c, err
	}
	defer unlock()
	refs, damaged, err := s.scan()
	if err != nil {
		return c, err
	}
	if len(damaged) > 0 {
		damaged[0].Remedy = "have the store verified, which moves it aside, and collect then"
		return c, damaged[0]
	}
	g := &collection{s, ctx, &c, max}
	err = g.collect(refs)
	c.Left = sizeOf(s.dir)
	return c, err
}

type collection struct {
	s   *Store
	ctx context.Context
	*Collected
	max int64
}

func (g *collection) full() bool { return g.max >= 0 && sizeOf(g.s.dir) > g.max }

// remove removes a file or directory and counts its bytes.
func (g *collection) remove(path string) error {
	if err := g.ctx.Err(); err != nil {
		return err
	}
	size := sizeOf(path)
	if err := g.s.fs.RemoveAll(path); err != nil {
		return failed("removing what is not needed", path, err)
	}
	g.Bytes += size
	return nil
}

func (g *collection) collect(refs []Ref) error {
	s := g.s
	n, size, err := s.sweep()
	g.Litter, g.Bytes = g.Litter+n, g.Bytes+size
	if err != nil {
		return err
	}
	named := map[Digest]int{}
	for _, r := range refs {
		named[r.Object]++
	}
	objects, _, err := s.objects()
	if err != nil {
		return err
	}
	for _, d := range sortedDigests(objects) {
		if named[d] == 0 {
			if err := g.remove(s.path(d.rel())); err != nil {
				return err
			}
			g.Objects++
		}
	}
	dead, err := g.deadRuns()
	if err != nil {
		return err
	}
	aside, _ := fs.ReadDir(s.root.FS(), quarantineDir)
	for _, e := range aside {
		if !g.full() {
			return nil
		}
		if err := g.remove(s.path(quarantineDir + "/" + e.Name())); err != nil {
			return err
		}
		g.Aside++
	}
	for _, id := range dead {
		if !g.full() {
			return nil
		}
		removed, err := g.removeRun(id)
		if err != nil {
			return err
		}
		if removed {
			g.Runs++
		}
	}
	total := int64(0)
	if g.max >= 0 {
		total = sizeOf(s.dir)
	}
	for _, r := range slices.Backward(refs) { // the last bound comes first
		if g.max < 0 || total <= g.max {
			return nil
		}
		if err := g.ctx.Err(); err != nil {
			return err
		}
		before := g.Bytes
		g.Bytes += sizeOf(s.path(r.rel()))
		// The reference goes first, so that there never is one without its object.
		if err := s.removeRef(r.rel()); err != nil {
			g.Bytes = before
			return err
		}
		g.Refs = append(g.Refs, r)
		if named[r.Object]--; named[r.Object] == 0 {
			if err := g.remove(s.path(r.Object.rel())); err != nil {
				return err
			}
			g.Objects++
		}
		total -= g.Bytes - before
	}
	return nil
}

// deadRuns removes what is left of finished runs, and returns those that could be resumed, the least recent first.
func (g *collection) deadRuns() ([]string, error) {
	type run struct {
		id       string
		sequence uint64
	}
	var dead []run
	for _, id := range g.s.runs() {
		l, err := g.s.tryHold(id)
		if err != nil || l == nil {
			continue // it runs; or there is not even room for a lock, and the next GC sees to it
		}
		f, finished := g.examine(id)
		if finished {
			err = g.remove(g.s.runDir(id))
			g.Litter++
		} else {
			dead = append(dead, run{id, f.Sequence})
		}
		os.Remove(g.s.runLock(id))
		l.Unlock()
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(dead, func(a, b run) int { return cmp.Compare(a.sequence, b.sequence) })
	var ids []string
	for _, r := range dead {
		ids = append(ids, r.id)
	}
	return ids, nil
}

// examine tells whether a run that nobody holds needs its work no more.
func (g *collection) examine(id string) (f runFile, finished bool) {
	f, err := g.s.readRun(id)
	if errors.Is(err, fs.ErrNotExist) { // a lock alone, or a directory in which fn was never called
		return f, true
	}
	if err != nil || checkName(f.Name) != nil {
		return f, false // its work may be whole all the same
	}
	_, err = g.s.readRef((Ref{Name: f.Name, Key: f.Key}).rel())
	return f, err == nil
}

// removeRun removes the work of a run unless it is running.
func (g *collection) removeRun(id string) (bool, error) {
	l, err := g.s.tryHold(id)
	if err != nil || l == nil {
		return false, nil
	}
	defer l.Unlock()
	if err := g.remove(g.s.runDir(id)); err != nil {
		return false, err
	}
	os.Remove(g.s.runLock(id))
	return true, nil
}
