package proxy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	pipePrefix = "gonb_pipe_"
	// pipeAge is ample for GoNB to start the program for which it has made a pipe.
	pipeAge    = 5 * time.Second
	sweepEvery = time.Minute
)

// sweepPipes removes the named pipes that GoNB leaves behind now and then, one in a hundred cells. Those of other kernels are in the same directory: only what has
// become old, and what no program was told of that still runs, goes.
func sweepPipes() {
	paths, err := filepath.Glob(filepath.Join(os.TempDir(), pipePrefix+"*"))
	if err != nil {
		return // no pattern of ours is malformed
	}
	var old []string
	for _, path := range paths {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err != nil || info.Mode().Type() != fs.ModeNamedPipe || time.Since(info.ModTime()) < pipeAge {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) == os.Getuid() {
			old = append(old, path)
		}
	}
	if len(old) == 0 {
		return
	}
	used := map[string]bool{}
	for _, p := range processes() {
		for _, name := range pipeVariables {
			used[p.variable(name)] = true
		}
	}
	for _, path := range old {
		if !used[path] {
			_ = os.Remove(path) // it may have gone
		}
	}
}

// pipeVariables are by what a program is told of its pipes.
var pipeVariables = []string{"GONB_PIPE", "GONB_PIPE_BACK"}

// removePipes removes the pipes of a program whose GoNB has died.
func removePipes(p process) {
	for _, name := range pipeVariables {
		if pipe := p.variable(name); strings.HasPrefix(filepath.Base(pipe), pipePrefix) {
			_ = os.Remove(pipe)
		}
	}
}
