package gopls

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Client asks one gopls about files in the directory where GoNB compiles.
type Client struct {
	dir string

	mu       sync.Mutex // one question at a time: each is about a text of its own
	c        *conn
	versions map[string]int       // of the texts that were opened
	seen     map[string]time.Time // files on the disk that were told of
}

// New returns a client for the gopls that listens below dir. It connects when it is first asked.
func New(dir string) *Client { return &Client{dir: dir} }

// Text is a Go file that need not be on the disk.
type Text struct{ Name, Content string }

// Position in a text: line and column from 0, the column in UTF-16 units.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"character"`
}

// Item is something that can stand at the cursor.
type Item struct {
	Text   string // what is inserted
	From   int    // the column where what it replaces begins
	Kind   string // "function", "module", …
	Detail string // its type
}

// kinds are the protocol's numbers, by the names that Jupyter's front ends have icons for.
var kinds = map[int]string{2: "function", 3: "function", 4: "function", 5: "property", 6: "instance", 7: "class", 8: "interface", 9: "module", 10: "property", 13: "enum", 14: "keyword", 21: "constant", 22: "class", 25: "type parameter"}

// completion is an item as the protocol has it.
type completion struct {
	Kind     int             `json:"kind"`
	Detail   string          `json:"detail"`
	SortText string          `json:"sortText"`
	TextEdit json.RawMessage `json:"textEdit"`
}

// Complete lists what can stand at a position of the first of the texts.
func (c *Client) Complete(ctx context.Context, at Position, texts ...Text) ([]Item, error) {
	var list struct {
		Items []completion `json:"items"`
	}
	if err := c.ask(ctx, "textDocument/completion", at, texts, &list); err != nil {
		return nil, err
	}
	slices.SortStableFunc(list.Items, func(a, b completion) int {
		return strings.Compare(a.SortText, b.SortText)
	})
	var items []Item
	for _, i := range list.Items {
		var edit struct {
			NewText string                        `json:"newText"`
			Range   struct{ Start, End Position } `json:"range"`
		}
		if json.Unmarshal(i.TextEdit, &edit) != nil || edit.Range.Start.Line != at.Line || edit.Range.End != at {
			continue // it would replace more than stands before the cursor
		}
		items = append(items, Item{Text: edit.NewText, From: edit.Range.Start.Column, Kind: kinds[i.Kind], Detail: i.Detail})
	}
	return items, nil
}

// Hover returns the documentation of what stands at a position of the first of the texts, as Markdown; "": there is none.
func (c *Client) Hover(ctx context.Context, at Position, texts ...Text) (string, error) {
	var hover struct {
		Contents struct {
			Value string `json:"value"`
		} `json:"contents"`
	}
	err := c.ask(ctx, "textDocument/hover", at, texts, &hover)
	return hover.Contents.Value, err
}

func (c *Client) ask(ctx context.Context, method string, at Position, texts []Text, result any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.connect(ctx); err != nil {
		return err
	}
	err := c.update(texts)
	if err == nil {
		err = c.c.call(ctx, method, map[string]any{"textDocument": map[string]string{"uri": c.uri(texts[0].Name)}, "position": at}, result)
	}
	if errors.Is(err, errBroken) {
		c.c = nil // the next question tries again
	}
	return err
}

// connect connects, and waits for gopls to be there.
func (c *Client) connect(ctx context.Context) error {
	if c.c != nil {
		return nil
	}
	var conn *conn
	for {
		var err error
		// GoNB writes go.work right after it has started gopls, which has to see it.
		if _, err = os.Stat(filepath.Join(c.dir, "go.mod")); err == nil {
			if conn, err = dial(filepath.Join(c.dir, "gopls_socket")); err == nil {
				break
			}
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	root := c.uri("")
	params := map[string]any{
		"processId": os.Getpid(), "rootUri": root, "workspaceFolders": []map[string]string{{"uri": root, "name": "cells"}},
		"capabilities": map[string]any{
			"workspace": map[string]any{"configuration": true},
			"textDocument": map[string]any{
				"completion": map[string]any{"completionItem": map[string]any{"snippetSupport": false}},
				"hover":      map[string]any{"contentFormat": []string{"markdown"}},
			},
		},
	}
	var capabilities map[string]any
	if err := conn.call(ctx, "initialize", params, &capabilities); err != nil {
		_ = conn.nc.Close()
		return err
	}
	c.c, c.versions, c.seen = conn, map[string]int{}, map[string]time.Time{}
	return conn.notify("initialized", map[string]any{})
}

// update tells gopls the texts, and which files on the disk have changed.
func (c *Client) update(texts []Text) error {
	if err := c.files(); err != nil {
		return err
	}
	for _, t := range texts {
		uri := c.uri(t.Name)
		c.versions[t.Name]++
		var err error
		if v := c.versions[t.Name]; v == 1 {
			err = c.c.notify("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": uri, "languageId": "go", "version": v, "text": t.Content}})
		} else {
			err = c.c.notify("textDocument/didChange", map[string]any{
				"textDocument": map[string]any{"uri": uri, "version": v}, "contentChanges": []map[string]string{{"text": t.Content}},
			})
		}
		if err != nil {
			return errors.Join(errBroken, err)
		}
	}
	return nil
}

func (c *Client) files() error {
	type change struct {
		URI  string `json:"uri"`
		Type int    `json:"type"` // 1 made, 2 changed
	}
	var changes []change
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") || name == "go.mod" || name == "go.work" {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			before, known := c.seen[name]
			if !known {
				changes = append(changes, change{c.uri(name), 1})
			} else if !before.Equal(info.ModTime()) {
				changes = append(changes, change{c.uri(name), 2})
			}
			c.seen[name] = info.ModTime()
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if err := c.c.notify("workspace/didChangeWatchedFiles", map[string]any{"changes": changes}); err != nil {
		return errors.Join(errBroken, err)
	}
	return nil
}

func (c *Client) uri(name string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(c.dir, name)}).String()
}

// Close ends the connection.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c != nil {
		_ = c.c.nc.Close()
		c.c = nil
	}
}
