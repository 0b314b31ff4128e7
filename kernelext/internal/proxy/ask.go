package proxy

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/magic"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
)

// askPatience is how long GoNB, and gopls behind it, get to answer a question. The first one after the start takes longest.
const askPatience = 20 * time.Second

// ask answers a complete_request or an inspect_request: of commands by ourselves, of Go by GoNB's gopls.
func (k *kernel) ask(m *wire.Message) {
	var q struct {
		Code   string `json:"code"`
		Cursor *int   `json:"cursor_pos"`
		Detail int    `json:"detail_level"`
	}
	if err := m.Decode(&q); err != nil {
		k.refuse(k.front.shell, m, trace.Kernel, err.Error())
		return
	}
	if q.Cursor == nil || *q.Cursor < 0 {
		end := len([]rune(q.Code))
		q.Cursor = &end
	}
	k.busy(m)
	defer k.idle(m)
	typing := cell.At(q.Code, *q.Cursor)
	if m.Header.Type == "complete_request" {
		k.reply(k.front.shell, m, k.complete(m, typing, *q.Cursor))
	} else {
		k.reply(k.front.shell, m, k.inspect(m, typing, q.Detail))
	}
}

// complete returns the content of a complete_reply.
func (k *kernel) complete(m *wire.Message, t cell.Typing, cursor int) object {
	none := object{"status": "ok", "matches": []string{}, "cursor_start": cursor, "cursor_end": cursor, "metadata": object{}}
	if magic.IsCommand(t.Line) {
		matches, length := magic.Complete(k.Magics, k.state.Dir, t.Line)
		if len(matches) > 0 {
			none["matches"], none["cursor_start"] = matches, cursor-length
		}
		return none
	}
	content := k.question(m, object{"code": t.Code, "cursor_pos": t.Cursor})
	if content == nil {
		return none
	}
	matches := texts(content["matches"])
	start, ok := content["cursor_start"].(float64)
	if !ok || len(matches) == 0 {
		return none
	}
	none["cursor_start"] = min(t.Characters(int(start)), cursor)
	typed := []rune(t.Line)
	if n := cursor - none["cursor_start"].(int); n <= len(typed) {
		matches = thatBegin(matches, string(typed[len(typed)-n:]))
	}
	none["matches"] = matches
	return none
}

// thatBegin leaves out what gopls only finds similar, unless all is.
func thatBegin(matches []string, typed string) []string {
	for _, same := range []func(match, typed string) bool{
		strings.HasPrefix,
		func(match, typed string) bool {
			return strings.HasPrefix(strings.ToLower(match), strings.ToLower(typed))
		},
	} {
		var kept []string
		for _, m := range matches {
			if same(m, typed) {
				kept = append(kept, m)
			}
		}
		if len(kept) > 0 {
			return kept
		}
	}
	return matches
}

func texts(v any) []string {
	list, _ := v.([]any)
	found := []string{}
	for _, e := range list {
		if text, ok := e.(string); ok {
			found = append(found, text)
		}
	}
	return found
}

// inspect returns the content of an inspect_reply.
func (k *kernel) inspect(m *wire.Message, t cell.Typing, detail int) object {
	none := object{"status": "ok", "found": false, "data": object{}, "metadata": object{}}
	if magic.IsCommand(t.Line) {
		if doc := magic.Document(k.Magics, t.Line); doc != "" {
			none["found"], none["data"] = true, object{"text/plain": doc, "text/markdown": doc}
		}
		return none
	}
	content := k.question(m, object{"code": t.Code, "cursor_pos": t.Cursor, "detail_level": detail})
	data, _ := content["data"].(object)
	if found, _ := content["found"].(bool); !found || len(data) == 0 {
		return none
	}
	markdown, _ := data["text/markdown"].(string)
	if markdown == "" {
		// GoNB answers with an error's text where it has nothing.
		return none
	}
	if _, ok := data["text/plain"]; !ok {
		data["text/plain"] = plain(markdown)
	}
	none["found"], none["data"] = true, data
	return none
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

// question has GoNB answer m with another content. It returns nil if there is no answer: while a cell runs GoNB would answer after it, and the reader has
// typed on by then.
func (k *kernel) question(m *wire.Message, content object) object {
	k.mu.Lock()
	busy := k.running != nil
	k.mu.Unlock()
	if busy {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	reply, err := k.forward(ctx, m, content)
	if err != nil {
		k.log.say("a question got no answer: " + err.Error())
		return nil
	}
	return reply
}

// forward has GoNB answer m with another content.
func (k *kernel) forward(ctx context.Context, m *wire.Message, content object) (object, error) {
	g, err := k.backend.get(ctx)
	if err != nil {
		return nil, err
	}
	request, err := m.With(content)
	if err != nil {
		return nil, err
	}
	request.Metadata, request.Buffers = []byte("{}"), nil
	replies := make(chan *wire.Message, 1)
	g.ask(request, func(m *wire.Message) { replies <- m })
	select {
	case m := <-replies:
		if m == nil {
			return nil, g.fate
		}
		return m.Object()
	case <-ctx.Done():
		g.mu.Lock()
		delete(g.pending, request.Header.ID)
		g.mu.Unlock()
		return nil, ctx.Err()
	}
}

// page is the documentation that `name?` asks for, as a front end shows it beside the notebook.
func (k *kernel) page(ctx context.Context, r *running, topic string) (object, error) {
	text := ""
	switch {
	case topic == "":
		text = magic.HelpText(k.Magics)
	case magic.IsCommand(topic):
		text = magic.Document(k.Magics, topic)
	default:
		t := cell.At(topic, len([]rune(topic)))
		header := r.request.Header
		header.ID, header.Type = wire.NewID(), "inspect_request"
		raw, err := json.Marshal(header)
		if err != nil {
			return nil, err
		}
		request := &wire.Message{Header: header, RawHeader: raw, RawParent: []byte("{}")}
		content, err := k.forward(ctx, request, object{"code": t.Code, "cursor_pos": t.Cursor, "detail_level": 0})
		if err != nil {
			return nil, err
		}
		data, _ := content["data"].(object)
		if markdown, _ := data["text/markdown"].(string); markdown != "" {
			text = plain(markdown)
		}
	}
	if text == "" {
		return nil, &failure{trace.Plain("NotFound", "nothing is known of "+topic)}
	}
	return object{"source": "page", "start": 0, "data": object{"text/plain": text}}, nil
}
