package proxy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/gopls"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/magic"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
)

// askPatience is how long gopls gets to answer a question. The first one after its start takes longest.
const askPatience = 20 * time.Second

// ask answers a complete_request or an inspect_request: of commands by ourselves, of Go by gopls.
func (k *kernel) ask(ctx context.Context, m *wire.Message) {
	var q struct {
		Code   string `json:"code"`
		Cursor *int   `json:"cursor_pos"`
	}
	if err := m.Decode(&q); err != nil {
		k.refuse(k.front.shell, m, trace.Kernel, err.Error())
		return
	}
	if end := len([]rune(q.Code)); q.Cursor == nil || *q.Cursor < 0 || *q.Cursor > end {
		q.Cursor = &end
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	k.busy(m)
	defer k.idle(m)
	typing := cell.At(q.Code, *q.Cursor)
	if m.Header.Type == "complete_request" {
		k.reply(k.front.shell, m, k.complete(ctx, typing, *q.Cursor))
	} else {
		k.reply(k.front.shell, m, k.inspect(ctx, typing))
	}
}

// complete returns the content of a complete_reply.
func (k *kernel) complete(ctx context.Context, t cell.Typing, cursor int) object {
	reply := object{"status": "ok", "matches": []string{}, "cursor_start": cursor, "cursor_end": cursor, "metadata": object{}}
	if magic.IsCommand(t.Line) {
		matches, length := magic.Complete(k.Magics, k.state.Dir, t.Line)
		if len(matches) > 0 {
			reply["matches"], reply["cursor_start"] = matches, cursor-length
		}
		return reply
	}
	var items []gopls.Item
	err := k.lookup(ctx, t, func(client *gopls.Client, at gopls.Position, texts []gopls.Text) (bool, error) {
		var err error
		items, err = client.Complete(ctx, at, texts...)
		return true, err // what is not imported is offered too
	})
	if err != nil {
		k.log.say("completion: " + err.Error())
	}
	if len(items) == 0 {
		return reply
	}
	// All replace the same text before the cursor; one that does not could not be told in a reply.
	from := items[0].From
	start := cursor - t.Back(from)
	typed := []rune(t.Line)
	items = thatBegin(items, string(typed[max(0, len(typed)-(cursor-start)):]))
	matches, types := []string{}, []object{}
	for _, i := range items {
		if i.From == from {
			matches = append(matches, i.Text)
			types = append(types, object{"start": start, "end": cursor, "text": i.Text, "type": i.Kind, "signature": i.Detail})
		}
	}
	reply["matches"], reply["cursor_start"] = matches, start
	reply["metadata"] = object{"_jupyter_types_experimental": types}
	return reply
}

// thatBegin leaves out what gopls only finds similar, unless all is.
func thatBegin(items []gopls.Item, typed string) []gopls.Item {
	for _, same := range []func(text, typed string) bool{
		strings.HasPrefix,
		func(text, typed string) bool { return strings.HasPrefix(strings.ToLower(text), strings.ToLower(typed)) },
	} {
		var kept []gopls.Item
		for _, i := range items {
			if same(i.Text, typed) {
				kept = append(kept, i)
			}
		}
		if len(kept) > 0 {
			return kept
		}
	}
	return items
}

// inspect returns the content of an inspect_reply.
func (k *kernel) inspect(ctx context.Context, t cell.Typing) object {
	reply := object{"status": "ok", "found": false, "data": object{}, "metadata": object{}}
	if magic.IsCommand(t.Line) {
		if doc := magic.Document(k.Magics, t.Full); doc != "" {
			reply["found"], reply["data"] = true, object{"text/plain": doc, "text/markdown": "```\n" + doc + "\n```"}
		}
		return reply
	}
	markdown, err := k.hover(ctx, t)
	if err != nil {
		k.log.say("inspection: " + err.Error())
	}
	if markdown != "" {
		reply["found"], reply["data"] = true, object{"text/plain": plain(markdown), "text/markdown": markdown}
	}
	return reply
}

// hover returns the documentation of what stands at the cursor, or right before it, as after a name or within a call's parentheses.
func (k *kernel) hover(ctx context.Context, t cell.Typing) (markdown string, err error) {
	err = k.lookup(ctx, t, func(client *gopls.Client, at gopls.Position, texts []gopls.Text) (bool, error) {
		before := strings.TrimRight(t.Line, "( ")
		name := at
		name.Column -= len(utf16.Encode([]rune(t.Line[len(before):]))) + 1
		places := []gopls.Position{at, name}
		if before != "" && strings.Contains(t.Line[len(before):], "(") {
			places = []gopls.Position{name, at}
		}
		var err error
		for _, place := range places {
			if place.Column >= 0 && markdown == "" && err == nil {
				markdown, err = client.Hover(ctx, place, texts...)
			}
		}
		return markdown != "", err
	})
	return markdown, err
}

// lookup has gopls look at the cell, together with what the notebook has declared before.
func (k *kernel) lookup(ctx context.Context, t cell.Typing, do func(*gopls.Client, gopls.Position, []gopls.Text) (found bool, err error)) error {
	if strings.TrimSpace(t.Go) == "" {
		return nil
	}
	client, err := k.gopls(ctx)
	if err != nil {
		return err
	}
	before, err := os.ReadFile(filepath.Join(k.state.Dir, keep.DeclarationsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	rest := gopls.Text{Name: "espalier_before.go", Content: cell.Without(string(before), t.Declares)}
	// The imports of earlier cells hold for this one. They stand on a line of their own before it.
	imports := k.importsBut(t.Go)
	for tried := false; ; tried = true {
		text := "package main; import (" + strings.Join(imports, "; ") + ")\n" + t.Go
		found, err := do(client, gopls.Position{Line: t.Row + 1, Column: t.Column}, []gopls.Text{{Name: "main.go", Content: text}, rest})
		if found || tried || err != nil {
			return err
		}
		// Those that are still missing GoNB has goimports find when the cell runs.
		more := missingImports(ctx, text)
		if len(more) == 0 {
			return nil
		}
		imports = append(imports, more...)
	}
}

// missingImports has goimports find the imports that a text lacks; none if it does not parse.
func missingImports(ctx context.Context, text string) []string {
	cmd := exec.CommandContext(ctx, "goimports")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	have := cell.FileImports(text)
	return slices.DeleteFunc(cell.FileImports(string(out)), func(i string) bool { return slices.Contains(have, i) })
}

// gopls returns the client for the gopls of the running GoNB.
func (k *kernel) gopls(ctx context.Context) (*gopls.Client, error) {
	g, err := k.backend.get(ctx)
	if err != nil {
		return nil, err
	}
	for g.tempDir() == "" {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-g.done:
			return nil, g.fate
		case <-time.After(20 * time.Millisecond):
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.client == nil {
		g.client = gopls.New(g.temp)
	}
	return g.client, nil
}

// importTable holds the imports of the cells that ran.
type importTable struct {
	mu   sync.Mutex
	list []string
}

const maxImports = 1000

func (t *importTable) add(imports []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range imports {
		if !slices.Contains(t.list, i) && len(t.list) < maxImports {
			t.list = append(t.list, i)
		}
	}
}

// importsBut lists the imports of earlier cells that the text does not have itself.
func (k *kernel) importsBut(text string) []string {
	k.imports.mu.Lock()
	defer k.imports.mu.Unlock()
	own := map[string]bool{}
	if c, _ := cell.Read(text); c != nil {
		for _, i := range c.Imports() {
			own[i] = true
		}
	}
	var rest []string
	for _, i := range k.imports.list {
		if !own[i] {
			rest = append(rest, i)
		}
	}
	return rest
}

var link = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

// plain makes text of gopls' Markdown.
func plain(markdown string) string {
	var lines []string
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, " \n")
		if strings.HasPrefix(line, "```") || line == "---" {
			continue
		}
		lines = append(lines, strings.NewReplacer("`", "", `\_`, "_", `\*`, "*", `\[`, "[", `\]`, "]", `\(`, "(", `\)`, ")").Replace(link.ReplaceAllString(line, "$1")))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// page is the documentation that `name?` asks for, as a front end shows it beside the notebook.
func (k *kernel) page(ctx context.Context, topic string) (object, error) {
	text := ""
	switch {
	case topic == "":
		text = magic.HelpText(k.Magics)
	case magic.IsCommand(topic):
		text = magic.Document(k.Magics, topic)
	default:
		ctx, cancel := context.WithTimeout(ctx, askPatience)
		defer cancel()
		markdown, err := k.hover(ctx, cell.At(topic, len([]rune(topic))))
		if err != nil {
			return nil, err
		}
		text = plain(markdown)
	}
	if text == "" {
		return nil, &failure{trace.Plain("NotFound", "nothing is known of "+topic)}
	}
	return object{"source": "page", "start": 0, "data": object{"text/plain": text}}, nil
}
