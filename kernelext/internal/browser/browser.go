// Package browser looks at notebooks as a reader does: JupyterLab, started by `espalier lab`, in a browser without a screen. A training cell is run, its chart
// watched, stopped and gone on with, in the light and in the dark theme.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

// Check is one thing that was looked at.
type Check struct {
	Name string
	Err  error // nil: it is so
}

// ShotsVariable is the environment variable that names a directory for pictures of what was seen. Without it none are kept.
const ShotsVariable = "ESPALIER_BROWSER_SHOTS"

// patience is for a single thing to happen. It does not measure anything: on a machine at work a first cell can take minutes.
const patience = 5 * time.Minute

// Run looks at everything, and tells of each check when it is made. A check that fails ends the run. Without a browser the error is a *MissingError.
func Run(ctx context.Context, p setup.Paths, lab string, each func(Check)) error {
	if _, _, err := commands(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "espalier-browser-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	content, err := notebook(setup.KernelName, training, sweep)
	if err != nil {
		return err
	}
	for _, theme := range []string{"light", "dark"} {
		s := &scene{theme: theme, dir: dir, each: each}
		if err := s.play(ctx, p, lab, content); err != nil {
			return err
		}
	}
	return nil
}

// scene is what happens in one theme. The second one finds the training finished by the first.
type scene struct {
	theme, dir string
	each       func(Check)
	page       *page
	failed     error
	shots      int
}

func (s *scene) play(ctx context.Context, p setup.Paths, lab string, content []byte) error {
	root := filepath.Join(s.dir, s.theme)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "training.ipynb"), content, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Settings of its own: the theme that is chosen here is not to be that of the user's next session.
	cmd := exec.CommandContext(ctx, lab, "lab", "--no-browser", "--ServerApp.root_dir="+root, "--ServerApp.port=0", "--LabApp.expose_app_in_browser=True",
		"--LabApp.user_settings_dir="+filepath.Join(s.dir, s.theme+"-settings"), "--LabApp.workspaces_dir="+filepath.Join(s.dir, s.theme+"-workspaces"))
	cmd.Dir = p.Project
	cmd.Env = append(p.Env(), "ESPALIER_THEME="+s.theme, "ESPALIER_STATE="+filepath.Join(s.dir, "state"))
	setup.OwnGroup(cmd)
	address, err := started(cmd, regexp.MustCompile(`(http://127\.0\.0\.1:\d+)/lab\?token=(\w+)`))
	if err != nil {
		return fmt.Errorf("espalier lab: %w", err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was told to end
	}()
	if s.page, err = open(ctx, filepath.Join(s.dir, s.theme+"-profile")); err != nil {
		return err
	}
	defer s.page.close()
	if err := s.page.visit(ctx, address[1]+"/lab/tree/training.ipynb?reset&token="+address[2]); err != nil {
		return err
	}
	if s.theme == "light" {
		s.first(ctx)
	} else {
		s.second(ctx)
	}
	return s.failed
}

// first trains, stops and goes on.
func (s *scene) first(ctx context.Context) {
	s.wait(ctx, "the notebook opens and its kernel is ready", s.ready)
	s.do("run the first cell", func() error { return s.command(ctx, "notebook:run-cell") })
	step := 0
	for n := range 3 {
		s.wait(ctx, []string{"a live chart appears", "the chart moves", "the chart goes on moving"}[n], func(ctx context.Context) (bool, error) {
			now, err := s.step(ctx)
			if err != nil || now <= step {
				return false, err
			}
			step = now
			return true, nil
		})
		s.shoot(ctx)
	}
	s.do("press stop", func() error { return s.page.click(ctx, `[data-command="notebook:interrupt-kernel"]`) })
	s.wait(ctx, "the partial result is drawn, as a static figure", s.has(0, "stopped at step "))
	s.wait(ctx, "the cell says how to go on", s.has(0, "Run the cell again to go on"))
	s.shoot(ctx)
	s.do("restart the kernel and run all", func() error { return s.page.click(ctx, `[data-command="notebook:restart-run-all"]`) })
	s.do("confirm", func() error { return s.page.click(ctx, `.jp-Dialog .jp-mod-accept`) })
	s.wait(ctx, "the training goes on where it stopped, to the end", func(ctx context.Context) (bool, error) {
		text, err := s.output(ctx, 0)
		m := regexp.MustCompile(`went on from step (\d+) of ` + strconv.Itoa(steps)).FindStringSubmatch(text)
		if err != nil || m == nil {
			return false, err
		}
		if from, _ := strconv.Atoi(m[1]); from < step {
			return false, fmt.Errorf("it went on from step %d, and the chart had shown step %d", from, step)
		}
		return true, nil
	})
	s.wait(ctx, "the whole run is drawn", s.has(0, "12,000 steps, done"))
	s.wait(ctx, "it fits its column", s.fits)
	s.slider(ctx)
	s.shoot(ctx)
}

// second finds the run finished, in the dark.
func (s *scene) second(ctx context.Context) {
	s.wait(ctx, "the notebook opens and its kernel is ready, for the dark theme", s.ready)
	s.do("choose the dark theme", func() error { return s.command(ctx, "apputils:change-theme", "JupyterLab Dark") })
	s.do("run all", func() error { return s.command(ctx, "notebook:run-all-cells") })
	s.wait(ctx, "the finished run is drawn at once", s.has(0, "12,000 steps, done"))
	s.wait(ctx, "it is drawn on a dark ground", s.has(0, "#1b1d21"))
	s.wait(ctx, "it fits its column, in the dark theme", s.fits)
	s.slider(ctx)
	s.shoot(ctx)
}

// slider moves the sweep's slider with the keyboard.
func (s *scene) slider(ctx context.Context) {
	shows := func(what string) func(context.Context) (bool, error) {
		return func(ctx context.Context) (yes bool, err error) {
			err = s.page.run(ctx, `const all = document.querySelectorAll('[data-espalier-sweep]'); return all.length > 0 && all[0].textContent.includes(arguments[0])`, &yes, what)
			return yes, err
		}
	}
	s.wait(ctx, "a sweep shows its first figure, "+s.theme, shows("to the power of 1"))
	s.do("move the slider", func() error { return s.page.press(ctx, `[data-espalier-sweep] input[type=range]`, "\ue014") }) // arrow right
	s.wait(ctx, "the sweep shows the next figure, "+s.theme, shows("to the power of 2"))
}

// ready: the notebook is there and connected to its kernel. GoNB does not say that it is idle before the first cell has run.
func (s *scene) ready(ctx context.Context) (yes bool, err error) {
	err = s.page.run(ctx, `const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
		const kernel = panel && panel.sessionContext && panel.sessionContext.session && panel.sessionContext.session.kernel;
		return !!kernel && kernel.connectionStatus === 'connected' && panel.content.widgets.length > 1`, &yes)
	return yes, err
}

func (s *scene) command(ctx context.Context, name string, theme ...string) error {
	args := map[string]any{}
	if len(theme) > 0 {
		args["theme"] = theme[0]
	}
	return s.page.run(ctx, `window.jupyterapp.commands.execute(arguments[0], arguments[1])`, nil, name, args)
}

// output is all that a cell shows, pictures as their source.
func (s *scene) output(ctx context.Context, cell int) (text string, err error) {
	err = s.page.run(ctx, `const panel = window.jupyterapp.shell.currentWidget;
		const outputs = panel.content.widgets[arguments[0]].model.outputs;
		let text = '';
		for (let i = 0; i < outputs.length; i++) {
			const o = outputs.get(i).toJSON();
			text += o.text ? [].concat(o.text).join('') : '';
			for (const mime of ['text/html', 'image/svg+xml', 'text/plain']) { text += o.data && o.data[mime] ? [].concat(o.data[mime]).join('') : ''; }
		}
		return text`, &text, cell)
	return text, err
}

// fits: no output is wider than the room that it has.
func (s *scene) fits(ctx context.Context) (yes bool, err error) {
	err = s.page.run(ctx, `const all = [...document.querySelectorAll('.jp-OutputArea-output')];
		return all.length > 0 && all.every(o => o.scrollWidth <= o.clientWidth + 1)`, &yes)
	return yes, err
}

// has waits for a text in the output of a cell.
func (s *scene) has(cell int, what string) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		text, err := s.output(ctx, cell)
		return strings.Contains(text, what), err
	}
}

var stepOf = regexp.MustCompile(`>[^<]*: step ([\d,]+) of 12,000`)

// step is where the chart that is to be seen says that the training is, 0 if there is none.
func (s *scene) step(ctx context.Context) (int, error) {
	var seen string
	if err := s.page.run(ctx, `const svg = document.querySelector('.jp-OutputArea-output svg'); return svg ? svg.outerHTML : ''`, &seen); err != nil {
		return 0, err
	}
	m := stepOf.FindStringSubmatch(seen)
	if m == nil {
		text, err := s.output(ctx, 0)
		if err == nil && strings.Contains(text, "rror") && !strings.Contains(text, "step") {
			err = fmt.Errorf("the cell says: %.300s", text)
		}
		return 0, err
	}
	return strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
}

// do does something, unless a check before failed.
func (s *scene) do(what string, f func() error) {
	if s.failed != nil {
		return
	}
	if err := f(); err != nil {
		s.fail(what, err)
	}
}

// wait checks that something comes to be.
func (s *scene) wait(ctx context.Context, what string, f func(context.Context) (bool, error)) {
	if s.failed != nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		yes, err := f(limited)
		switch {
		case limited.Err() != nil && ctx.Err() == nil:
			text, _ := s.output(ctx, 0) // only says more
			s.shoot(ctx)
			s.fail(what, fmt.Errorf("it did not within %v; the first cell shows: %.1000s", patience, text))
			return
		case err != nil:
			s.shoot(ctx)
			s.fail(what, err)
			return
		case yes:
			s.each(Check{Name: what})
			return
		}
		select {
		case <-limited.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *scene) fail(what string, err error) {
	s.failed = fmt.Errorf("%s: %w", what, err)
	s.each(Check{what, err})
}

// shoot keeps a picture of what is to be seen, if one is wanted.
func (s *scene) shoot(ctx context.Context) {
	dir := os.Getenv(ShotsVariable)
	if dir == "" || s.failed != nil {
		return
	}
	s.shots++
	data, err := s.page.screenshot(ctx)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.png", s.theme, s.shots)), data, 0o644)
	}
	if err != nil && s.failed == nil {
		s.fail("keep a picture", err)
	}
}
