package keep

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/keep/manifest"
)

// Limit bounds what the notebooks' variables take on disk together. Those of the notebooks that were used longest ago go first.
const Limit = 8 << 30

// Notebook is the place of a notebook's variables while a kernel runs it.
type Notebook struct {
	Dir  string // for StateEnv
	lock *os.File
}

const (
	current  = "variables"
	last     = "last" // those of the kernel before
	lockName = "lock"
)

// ErrNothingToRestore says that no earlier kernel of a notebook left variables.
var ErrNothingToRestore = errors.New("nothing to restore: no earlier kernel of this notebook left variables")

// Open makes the place for a notebook's variables in the state directory below home, empty, and sets what its last kernel left aside for Restore.
// notebook is what tells it from others, its path for instance. A second kernel of the same notebook gets a place of its own for as long as both run.
func Open(home, notebook string) (*Notebook, error) {
	digest := sha256.Sum256([]byte(notebook))
	base := filepath.Join(home, "state", readable(notebook)+"-"+hex.EncodeToString(digest[:6]))
	for i := range 100 {
		dir := base
		if i > 0 {
			dir = fmt.Sprintf("%s-%d", base, i+1)
		}
		n, err := open(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return n, bound(filepath.Join(home, "state"), dir, Limit)
	}
	return nil, fmt.Errorf("100 kernels run %s at once: shut some of them down", notebook)
}

func open(dir string) (*Notebook, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := manifest.Own(dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// It ends with the process, however that ends.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	n := &Notebook{Dir: filepath.Join(dir, current), lock: lock}
	if err := n.begin(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return n, nil
}

// begin sets aside what the last kernel left, unless that is nothing: then what is aside stays.
func (n *Notebook) begin() error {
	m, err := manifest.Read(n.Dir)
	if err == nil && len(m.Vars) > 0 {
		aside := filepath.Join(filepath.Dir(n.Dir), last)
		if err := os.RemoveAll(aside); err != nil {
			return err
		}
		if err := os.Rename(n.Dir, aside); err != nil {
			return err
		}
	} else if err := os.RemoveAll(n.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return err
	}
	now := time.Now()
	return os.Chtimes(filepath.Dir(n.Dir), now, now)
}

// Close gives the notebook's place free; its variables stay for Restore.
func (n *Notebook) Close() error { return n.lock.Close() }

// Restore brings back the variables that the notebook's last kernel left, in place of the present ones, which are set aside, so that a second Restore brings them back; and returns the declarations that go with
// them: a Go file without main, to be run as a cell whose Cell.Declares is empty, so that nothing in it is evaluated.
func Restore(dir string) (declarations string, err error) {
	aside := filepath.Join(filepath.Dir(dir), last)
	m, err := manifest.Read(aside)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(aside, DeclarationsFile))
	if len(m.Vars) == 0 || errors.Is(err, fs.ErrNotExist) {
		return "", ErrNothingToRestore
	}
	if err != nil {
		return "", err
	}
	present, err := manifest.Read(dir)
	if err != nil || len(present.Vars) == 0 {
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
		return string(text), os.Rename(aside, dir)
	}
	between := aside + "-restored"
	if err := os.RemoveAll(between); err != nil {
		return "", err
	}
	return string(text), errors.Join(os.Rename(aside, between), os.Rename(dir, aside), os.Rename(between, dir))
}

// readable returns the part of a notebook's name that a directory can have in its own.
func readable(notebook string) string {
	name := strings.TrimSuffix(filepath.Base(notebook), ".ipynb")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, name)
	return name[:min(len(name), 40)]
}

// bound removes the places that were used longest ago until all together take no more than limit bytes. That of the caller stays, and those that
// other kernels use.
func bound(state, mine string, limit int64) error {
	type place struct {
		dir  string
		size int64
		used time.Time
	}
	entries, err := os.ReadDir(state)
	if err != nil {
		return err
	}
	var places []place
	total := int64(0)
	for _, e := range entries {
		p := place{dir: filepath.Join(state, e.Name())}
		info, err := e.Info()
		if err != nil || !e.IsDir() {
			continue // it went meanwhile, or is not ours
		}
		p.used = info.ModTime()
		_ = filepath.WalkDir(p.dir, func(_ string, f fs.DirEntry, err error) error {
			if err == nil && f.Type().IsRegular() {
				if info, err := f.Info(); err == nil {
					p.size += info.Size()
				}
			}
			return nil // what went while we looked takes no space
		})
		total += p.size
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b place) int { return a.used.Compare(b.used) })
	for _, p := range places {
		if total <= limit {
			return nil
		}
		if p.dir == mine || inUse(p.dir) {
			continue
		}
		if err := os.RemoveAll(p.dir); err != nil {
			return err
		}
		total -= p.size
	}
	return nil
}

func inUse(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer lock.Close()
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}
