package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// content is what the server has.
var content = func() []byte {
	b := make([]byte, 200_000)
	for i := range b {
		b[i] = byte(i * i / 251)
	}
	return b
}()

// server answers with handler and counts the requests.
type server struct {
	*httptest.Server
	requests atomic.Int64
}

func serve(t *testing.T, handler func(w http.ResponseWriter, r *http.Request, request int)) (*server, File) {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler(w, r, int(s.requests.Add(1)))
	}))
	t.Cleanup(s.Close)
	sum := sha256.Sum256(content)
	return s, File{URL: s.URL + "/file", Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// whole serves the content, ranges included.
func whole(w http.ResponseWriter, r *http.Request, _ int) {
	http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(content))
}

// cut sends n bytes from the one that was asked for and breaks the connection.
func cut(w http.ResponseWriter, r *http.Request, n int) {
	start := 0
	if from, found := strings.CutPrefix(r.Header.Get("Range"), "bytes="); found {
		start, _ = strconv.Atoi(strings.TrimSuffix(from, "-"))
		w.Header().Set("Content-Range", "bytes "+strconv.Itoa(start)+"-"+strconv.Itoa(len(content)-1)+"/"+strconv.Itoa(len(content)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)-start))
	if start > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(content[start:min(start+n, len(content))])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

var quick = Options{Stall: 10 * time.Second, Wait: time.Millisecond, Attempts: 2}

// there fails unless path holds the content and nothing else is left but the lock.
func there(t *testing.T, path string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v; expected the %d of the content", len(got), err, len(content))
	}
	if _, err := os.Stat(path + ".part"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the .part file is left: %v", err)
	}
}

// absent fails unless there is nothing under path.
func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is something under the name: %v", err)
	}
}

func refused(t *testing.T, err, kind error, want string) {
	t.Helper()
	var typed *fault.Error
	if !errors.Is(err, kind) || !errors.As(err, &typed) {
		t.Fatalf("%v, expected a *fault.Error of kind %q", err, kind)
	}
	if !strings.Contains(err.Error(), want) || typed.Remedy == "" {
		t.Errorf("%q doesn't say %q and a remedy", err, want)
	}
}

func TestGet(t *testing.T) {
	s, f := serve(t, whole)
	path := filepath.Join(t.TempDir(), "new", "file")
	last := int64(0)
	o := quick
	o.Progress = func(done, total int64) {
		if done < last || total != f.Size {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}
	for range 2 {
		if err := Get(t.Context(), f, path, o); err != nil {
			t.Fatal(err)
		}
		there(t, path)
	}
	if n := s.requests.Load(); n != 1 || last != f.Size {
		t.Errorf("%d requests, progress up to %d; expected 1 and %d", n, last, f.Size)
	}
}

// Wherever the connection breaks, the next request asks for the rest.
func TestCutConnectionsAreResumed(t *testing.T) {
	for _, percent := range []int{0, 1, 37, 50, 99} {
		var ranges []string
		s, f := serve(t, func(w http.ResponseWriter, r *http.Request, request int) {
			ranges = append(ranges, r.Header.Get("Range"))
			if request == 1 {
				cut(w, r, len(content)*percent/100)
			}
			whole(w, r, request)
		})
		path := filepath.Join(t.TempDir(), "file")
		if err := Get(t.Context(), f, path, quick); err != nil {
			t.Fatalf("cut at %d%%: %v", percent, err)
		}
		there(t, path)
		if percent > 0 && (s.requests.Load() != 2 || ranges[1] != "bytes="+strconv.Itoa(len(content)*percent/100)+"-") {
			t.Errorf("cut at %d%%: requests with the ranges %q", percent, ranges)
		}
	}
}

// Attempts are counted while nothing new comes, and the next call goes on with what came.
func TestInterruptedDownloadGoesOn(t *testing.T) {
	broken := true
	_, f := serve(t, func(w http.ResponseWriter, r *http.Request, request int) {
		if !broken {
			whole(w, r, request)
			return
		}
		if r.Header.Get("Range") == "" {
			cut(w, r, 1000)
		}
		cut(w, r, 0)
	})
	path := filepath.Join(t.TempDir(), "file")
	refused(t, Get(t.Context(), f, path, quick), fault.ErrDownload, "goes on where it stopped")
	absent(t, path)
	if info, err := os.Stat(path + ".part"); err != nil || info.Size() != 1000 {
		t.Fatalf("%v, %v; expected the first 1000 bytes", info, err)
	}
	broken = false
	if err := Get(t.Context(), f, path, quick); err != nil {
		t.Fatal(err)
	}
	there(t, path)
}

func TestManySmallPiecesAreProgress(t *testing.T) {
	s, f := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) { cut(w, r, 15_000) })
	path := filepath.Join(t.TempDir(), "file")
	if err := Get(t.Context(), f, path, quick); err != nil {
		t.Fatal(err)
	}
	there(t, path)
	if s.requests.Load() < 10 {
		t.Errorf("%d requests for pieces of 15,000 of 200,000 bytes", s.requests.Load())
	}
}

func TestWrongContentIsNotKept(t *testing.T) {
	html := func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<html>log in first</html>"))
	}
	for _, c := range []struct {
		name    string
		handler func(http.ResponseWriter, *http.Request, int)
		kind    error
		want    string
	}{
		{"the right size, other bytes", func(w http.ResponseWriter, r *http.Request, _ int) {
			other := bytes.Clone(content)
			other[5]++
			http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(other))
		}, fault.ErrDigest, "nothing was kept"},
		{"a page of HTML", html, fault.ErrDownload, `25 bytes of "text/html"`},
		{"a page of HTML of unknown length", func(w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("Content-Type", "text/html")
			w.(http.Flusher).Flush()
			html(w, r, n)
		}, fault.ErrDownload, `25 bytes of "text/html" and no more`},
		{"more bytes", func(w http.ResponseWriter, r *http.Request, _ int) {
			w.Header().Set("Content-Length", strconv.Itoa(len(content)+3))
			w.Write(append(bytes.Clone(content), 1, 2, 3))
		}, fault.ErrDownload, "are missing"},
		{"not found", func(w http.ResponseWriter, r *http.Request, _ int) { http.NotFound(w, r) }, fault.ErrDownload, "404"},
		{"an endless redirection", func(w http.ResponseWriter, r *http.Request, _ int) { http.Redirect(w, r, "/file", http.StatusFound) },
			fault.ErrDownload, "redirects"},
		{"a server in trouble", func(w http.ResponseWriter, r *http.Request, _ int) { w.WriteHeader(503) }, fault.ErrDownload, "503"},
		{"no server", nil, fault.ErrDownload, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, f := serve(t, c.handler)
			if c.handler == nil {
				s.Close()
			}
			path := filepath.Join(t.TempDir(), "file")
			refused(t, Get(t.Context(), f, path, quick), c.kind, c.want)
			absent(t, path)
			if info, err := os.Stat(path + ".part"); err == nil && info.Size() > 0 {
				t.Errorf("%d wrong bytes are kept", info.Size())
			}
		})
	}
}

// What lies there from before is not trusted.
func TestWrongBeginnings(t *testing.T) {
	for name, c := range map[string]struct {
		file, part []byte
		handler    func(http.ResponseWriter, *http.Request, int)
	}{
		"a broken file":                   {file: content[:9]},
		"a part that is too long":         {part: append(bytes.Clone(content), 1)},
		"a part and a server without 206": {part: content[:77], handler: func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(content) }},
		"a part that the server refuses with 416": {part: content[:77], handler: func(w http.ResponseWriter, r *http.Request, n int) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			whole(w, r, n)
		}},
		"a part and the wrong range": {part: content[:77], handler: func(w http.ResponseWriter, r *http.Request, n int) {
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=5-")
			}
			whole(w, r, n)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			handler := c.handler
			if handler == nil {
				handler = whole
			}
			_, f := serve(t, handler)
			path := filepath.Join(t.TempDir(), "file")
			for at, b := range map[string][]byte{path: c.file, path + ".part": c.part} {
				if b != nil {
					if err := os.WriteFile(at, b, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := Get(t.Context(), f, path, quick); err != nil {
				t.Fatal(err)
			}
			there(t, path)
		})
	}
	// A whole part with wrong bytes costs one failure, and the next call succeeds.
	_, f := serve(t, whole)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path+".part", make([]byte, len(content)), 0o644); err != nil {
		t.Fatal(err)
	}
	refused(t, Get(t.Context(), f, path, quick), fault.ErrDigest, f.URL)
	absent(t, path)
	if err := Get(t.Context(), f, path, quick); err != nil {
		t.Fatal(err)
	}
	there(t, path)
}

func TestStall(t *testing.T) {
	release := make(chan struct{})
	_, f := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content[:10])
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	path := filepath.Join(t.TempDir(), "file")
	o := quick
	o.Stall = 30 * time.Millisecond
	refused(t, Get(t.Context(), f, path, o), fault.ErrDownload, "nothing came for 30ms")
	absent(t, path)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, f := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content[:10])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	path := filepath.Join(t.TempDir(), "file")
	err := Get(ctx, f, path, quick)
	refused(t, err, fault.ErrDownload, "canceled")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is no context.Canceled", err)
	}
	absent(t, path)
}

func TestOneDownloadForAllThatAskAtOnce(t *testing.T) {
	s, f := serve(t, whole)
	path := filepath.Join(t.TempDir(), "file")
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := Get(t.Context(), f, path, quick); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	there(t, path)
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests, expected 1", n)
	}
}

func TestDirectoryThatCannotBeMade(t *testing.T) {
	_, f := serve(t, whole)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	refused(t, Get(t.Context(), f, filepath.Join(file, "below", "file"), quick), fault.ErrDownload, "not a directory")
}
