// Package doctor checks what notebooks need, and says for each how to mend it.
package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

// ErrUnwell says that something is wrong or missing; what it is has been printed.
var ErrUnwell = errors.New("something is wrong or missing: see above")

const byRunningSetup = "run `go run ./kernelext/cmd/espalier setup`"

// finding is one line of the report.
type finding struct {
	name, found string
	err         error
	remedy      string
}

func (f finding) line() string {
	switch {
	case f.err == nil:
		return fmt.Sprintf("found    %-12s %s", f.name, f.found)
	case errors.Is(f.err, os.ErrNotExist):
		return fmt.Sprintf("missing  %-12s → %s", f.name, f.remedy)
	}
	return fmt.Sprintf("wrong    %-12s %v → %s", f.name, f.err, f.remedy)
}

// Run checks everything and prints a line for each; the last check runs a cell through the kernel. The error is ErrUnwell if one failed.
func Run(ctx context.Context, out io.Writer) error {
	p, err := setup.Locate()
	if err != nil {
		return err
	}
	findings := []finding{{name: "project", found: p.Project}}
	for _, r := range p.Requirements(ctx) {
		findings = append(findings, finding{r.Name, r.Found, r.Err, r.Remedy})
	}
	for _, t := range []struct{ name, path string }{{"gonb", p.Gonb}, {"goimports", p.Goimports}, {"gopls", p.Gopls}, {"staticcheck", p.Staticcheck}} {
		version, err := setup.ToolVersion(t.path)
		if err == nil && version != setup.WantVersion(t.name) {
			err = fmt.Errorf("found %s, expected %s", version, setup.WantVersion(t.name))
		}
		findings = append(findings, finding{t.name, version, err, byRunningSetup})
	}
	_, err = os.Stat(p.Jupyter)
	findings = append(findings, finding{"JupyterLab", p.Jupyter, err, byRunningSetup})
	findings = append(findings, finding{"XLA plugin", p.PluginDir, p.VerifyPlugin(),
		"remove " + p.PluginDir + " and " + byRunningSetup})
	findings = append(findings, finding{"kernel", p.SpecDir(), checkSpec(p), byRunningSetup})
	home := finding{"home", p.Home, writable(p.Home), "choose a directory that you can write with ESPALIER_HOME"}
	if errors.Is(home.err, os.ErrNotExist) {
		home.remedy = byRunningSetup
	}
	findings = append(findings, home)

	unwell := false
	for _, f := range findings {
		fmt.Fprintln(out, f.line())
		unwell = unwell || f.err != nil
	}
	if unwell {
		return ErrUnwell
	}
	f := finding{name: "a cell", found: "runs", remedy: byRunningSetup}
	results, err := p.Cells(ctx, setup.KernelName, []string{"import \"fmt\"\n\n%%\nfmt.Println(6 * 7)"})
	switch {
	case err != nil:
		f.err = err
	case results[0].Status != "ok" || strings.TrimSpace(results[0].Output) != "42":
		f.err = fmt.Errorf("it printed %q", results[0].Output)
	}
	fmt.Fprintln(out, f.line())
	if f.err != nil {
		return ErrUnwell
	}
	return nil
}

// checkSpec checks that what our kernelspec starts is there, and that it is for this project.
func checkSpec(p setup.Paths) error {
	data, err := os.ReadFile(filepath.Join(p.SpecDir(), "kernel.json"))
	if err != nil {
		return err
	}
	var spec struct {
		Argv []string
		Env  map[string]string
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	if len(spec.Argv) == 0 {
		return errors.New("it starts nothing")
	}
	if _, err := os.Stat(spec.Argv[0]); err != nil {
		return err
	}
	if spec.Env["ESPALIER_PROJECT"] != p.Project {
		return fmt.Errorf("it is for the project in %s", spec.Env["ESPALIER_PROJECT"])
	}
	return nil
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
