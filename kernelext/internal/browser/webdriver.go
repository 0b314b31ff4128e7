package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

// MissingError says that there is no browser to test with, and how to get one.
type MissingError struct{ Command string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("there is no %s command: `apt-get install chromium chromium-driver` on Debian, to test in a browser", e.Command)
}

// commands are the browser and the program that drives it, by the names that distributions have for them.
func commands() (chromium, driver string, err error) {
	for _, c := range []struct {
		path  *string
		names []string
	}{{&chromium, []string{"chromium", "chromium-browser", "google-chrome"}}, {&driver, []string{"chromedriver"}}} {
		for _, name := range c.names {
			if path, err := exec.LookPath(name); err == nil {
				*c.path = path
				break
			}
		}
		if *c.path == "" {
			return "", "", &MissingError{c.names[0]}
		}
	}
	return chromium, driver, nil
}

// page is a browser window, driven by the W3C's WebDriver protocol: JSON over HTTP.
type page struct {
	session string // its address
	close   func()
}

// open starts a browser. Its profile lies in dir.
func open(ctx context.Context, dir string) (*page, error) {
	chromium, driver, err := commands()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, driver, "--port=0")
	setup.OwnGroup(cmd)
	line, err := started(cmd, regexp.MustCompile(`successfully on port (\d+)`))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", driver, err)
	}
	stop := func() {
		cancel()
		_ = cmd.Wait() // it was told to end
	}
	args := []string{"--headless=new", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=1280,1500", "--user-data-dir=" + dir}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // which does not work for root, as in containers
	}
	p := &page{session: "http://127.0.0.1:" + line[1], close: stop}
	var session struct{ SessionID string }
	err = p.call(ctx, "POST", "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName": "chrome", "goog:chromeOptions": map[string]any{"binary": chromium, "args": args}}}}, &session)
	if err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w", chromium, err)
	}
	p.session += "/session/" + session.SessionID
	p.close = func() {
		_ = p.call(ctx, "DELETE", "", nil, nil) // else the driver's end is the browser's too
		stop()
	}
	return p, nil
}

// started starts a command and waits until a line of its output matches.
func started(cmd *exec.Cmd, what *regexp.Regexp) ([]string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	found := make(chan []string, 1)
	said := ""
	go func() {
		defer r.Close()
		defer close(found)
		for lines := bufio.NewScanner(r); lines.Scan(); { // to the end, so that the command never waits for a reader
			said = lines.Text()
			if m := what.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case found <- m:
				default:
				}
			}
		}
	}()
	select {
	case m, ok := <-found:
		if ok {
			return m, nil
		}
		return nil, errors.Join(fmt.Errorf("it ended at once, after saying %q", said), cmd.Wait())
	case <-time.After(2 * time.Minute):
		return nil, errors.Join(errors.New("it did not start within two minutes"), cmd.Cancel(), cmd.Wait())
	}
}

// call sends a command and decodes its value.
func (p *page) call(ctx context.Context, method, path string, body, value any) error {
	var content io.Reader
	if method == "POST" {
		if body == nil {
			body = map[string]any{}
		}
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, p.session+path, content)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var reply struct{ Value json.RawMessage }
	if err := json.Unmarshal(data, &reply); err != nil {
		return fmt.Errorf("%s %s: %w: %.200s", method, path, err, data)
	}
	if response.StatusCode != http.StatusOK {
		var problem struct{ Error, Message string }
		_ = json.Unmarshal(reply.Value, &problem) // the status says enough
		return fmt.Errorf("%s %s: %s: %.300s", method, path, problem.Error, problem.Message)
	}
	if value == nil {
		return nil
	}
	return json.Unmarshal(reply.Value, value)
}

func (p *page) visit(ctx context.Context, url string) error {
	return p.call(ctx, "POST", "/url", map[string]any{"url": url}, nil)
}

// run evaluates the body of a function, and decodes what it returns.
func (p *page) run(ctx context.Context, script string, value any, args ...any) error {
	if args == nil {
		args = []any{}
	}
	return p.call(ctx, "POST", "/execute/sync", map[string]any{"script": script, "args": args}, value)
}

// click clicks on the first element that a CSS selector matches, as a person would: it has to be visible.
func (p *page) click(ctx context.Context, selector string) error {
	var element map[string]string
	if err := p.call(ctx, "POST", "/element", map[string]any{"using": "css selector", "value": selector}, &element); err != nil {
		return err
	}
	for _, id := range element {
		return p.call(ctx, "POST", "/element/"+id+"/click", nil, nil)
	}
	return fmt.Errorf("there is no %s", selector)
}

// press types keys into the first element that a CSS selector matches.
func (p *page) press(ctx context.Context, selector, keys string) error {
	var element map[string]string
	if err := p.call(ctx, "POST", "/element", map[string]any{"using": "css selector", "value": selector}, &element); err != nil {
		return err
	}
	for _, id := range element {
		return p.call(ctx, "POST", "/element/"+id+"/value", map[string]any{"text": keys}, nil)
	}
	return fmt.Errorf("there is no %s", selector)
}

// screenshot returns what is to be seen, as PNG.
func (p *page) screenshot(ctx context.Context) ([]byte, error) {
	var data string
	if err := p.call(ctx, "GET", "/screenshot", nil, &data); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(data)
}
