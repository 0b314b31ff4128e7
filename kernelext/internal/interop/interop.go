// Package interop tries the kernel with the programs that people run notebooks with: nbclient, nbmake, papermill, jupytext. They are pinned in an environment
// of their own, which only this needs.
package interop

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

//go:embed interop.py
var script string

// translator teaches papermill Go.
//
//go:embed papermill_go.py
var translator []byte

// Result of a check.
type Result struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Run runs the checks and calls each with what came of them. notebook is one of the course's, which is run in two ways; "": none.
func Run(ctx context.Context, p setup.Paths, notebook string, progress io.Writer, each func(Result)) error {
	python, err := setup.EnsurePeer(ctx, progress, "interop")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "espalier-interop-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "papermill_go.py"), translator, 0o600); err != nil {
		return err
	}
	request, err := json.Marshal(map[string]string{"kernel": setup.KernelName, "dir": dir, "translator": dir, "notebook": notebook})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, python, "-c", script)
	cmd.Env = p.Env()
	setup.OwnGroup(cmd)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for d := json.NewDecoder(stdout); d.More(); {
		var r Result
		if err := d.Decode(&r); err != nil {
			return fmt.Errorf("the checks printed something else: %w", err)
		}
		each(r)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the checks did not run: %w: %s", err, stderr.String())
	}
	return nil
}
