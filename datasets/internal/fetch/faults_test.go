package fetch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// held returns a part file with the first n bytes, next to the path that is returned.
func held(t *testing.T, n int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path+".part", content[:n], 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A page of a network that wants a login, or a file of another size, costs nothing of what has come.
func TestWhatHasComeStays(t *testing.T) {
	for name, handler := range map[string]func(http.ResponseWriter, *http.Request, int){
		"a page of HTML": func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write([]byte("<html>log in first</html>")) },
		"all, with the length of the rest": func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Length", strconv.Itoa(len(content)-70_000))
			w.Write(content[70_000:])
		},
		"not found":         func(w http.ResponseWriter, r *http.Request, _ int) { http.NotFound(w, r) },
		"in trouble":        func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusBadGateway) },
		"too many requests": func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(http.StatusTooManyRequests) },
		"a redirection loop": func(w http.ResponseWriter, r *http.Request, n int) {
			http.Redirect(w, r, "/elsewhere/"+strconv.Itoa(n), http.StatusTemporaryRedirect)
		},
		"a redirection to a file": func(w http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		},
		"a part of another file": func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Range", "bytes 70000-70009/70010")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[:10])
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := serve(t, handler)
			path := held(t, 70_000)
			refused(t, Get(t.Context(), f, path, quick), fault.ErrDownload, f.URL)
			absent(t, path)
			if info, err := os.Stat(path + ".part"); err != nil || info.Size() != 70_000 {
				t.Fatalf("%v, %v; expected the 70000 bytes that had come", info, err)
			}
			if n := s.requests.Load(); n > 30 { // 10 redirections in each of 3 attempts
				t.Errorf("%d requests", n)
			}
			var ranges asked
			_, f = serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
				ranges.note(r)
				whole(w, r, n)
			})
			if err := Get(t.Context(), f, path, quick); err != nil {
				t.Fatal(err)
			}
			there(t, path)
			ranges.expect(t, "bytes=70000-")
		})
	}
}

// A server that answers 416 whatever it is asked is given up.
func TestAlways416(t *testing.T) {
	s, f := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	})
	path := held(t, 10)
	refused(t, Get(t.Context(), f, path, quick), fault.ErrDownload, "416")
	absent(t, path)
	if n := s.requests.Load(); n < 2 || n > 4 {
		t.Errorf("%d requests", n)
	}
}

// asked collects the ranges that were asked for.
type asked struct {
	mu     sync.Mutex
	ranges []string
}

func (a *asked) note(r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ranges = append(a.ranges, r.Header.Get("Range"))
}

func (a *asked) expect(t *testing.T, want ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if diff := cmp.Diff(want, a.ranges); diff != "" {
		t.Errorf("ranges -want +got\n%s", diff)
	}
}

// A stall, before the first byte or later, is a connection that broke: the next attempt goes on.
func TestStallsAreResumed(t *testing.T) {
	release := make(chan struct{})
	var ranges asked
	_, f := serve(t, func(w http.ResponseWriter, r *http.Request, request int) {
		ranges.note(r)
		switch request {
		case 1:
			<-release
		case 2:
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			w.Write(content[:500])
			w.(http.Flusher).Flush()
			<-release
		default:
			whole(w, r, request)
		}
	})
	defer close(release)
	path := filepath.Join(t.TempDir(), "file")
	o := quick
	o.Stall, o.Attempts = 200*time.Millisecond, 3
	if err := Get(t.Context(), f, path, o); err != nil {
		t.Fatal(err)
	}
	there(t, path)
	ranges.expect(t, "", "", "bytes=500-")
}

// A full disk is said at once, as what it is.
func TestAFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skipf("this system has no file that is always full: %v", err)
	}
	s, f := serve(t, whole)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.Symlink("/dev/full", path+".part"); err != nil {
		t.Fatal(err)
	}
	err := Get(t.Context(), f, path, quick)
	refused(t, err, fault.ErrDownload, "try again")
	if !errors.Is(err, syscall.ENOSPC) || s.requests.Load() != 1 {
		t.Errorf("%v after %d requests, expected ENOSPC after 1", err, s.requests.Load())
	}
	absent(t, path)
}

// What has the name and is no file, or has no end, is not trusted, and not waited for.
func TestVerifyEnds(t *testing.T) {
	_, f := serve(t, whole)
	if _, err := os.Stat("/dev/zero"); err == nil {
		refused(t, f.Verify("/dev/zero"), fault.ErrDigest, "more bytes")
	}
	if err := f.Verify(t.TempDir()); !errors.Is(err, fault.ErrMissing) {
		t.Errorf("a directory: %v, expected ErrMissing", err)
	}
}

// processEnv tells a process of this test what to download, as JSON.
const processEnv = "ESPALIER_TEST_FETCH"

type job struct {
	File File
	Path string
}

// TestMain lets the test's own program be the other process.
func TestMain(m *testing.M) {
	text := os.Getenv(processEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	fmt.Println("started")
	if err := Get(context.Background(), j.File, j.Path, quick); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process starts another process that downloads f to path, and returns when it is about to.
func process(t *testing.T, f File, path string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(job{f, path})
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestProcessesThatAskAtOnce(t *testing.T) {
	s, f := serve(t, whole)
	path := filepath.Join(t.TempDir(), "file")
	var all []*exec.Cmd
	for range 4 {
		all = append(all, process(t, f, path))
	}
	for i, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	there(t, path)
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests, expected 1", n)
	}
}

// A process that is killed in the middle leaves nothing under the name; the one that waits for it goes on where it stopped.
func TestAProcessThatIsKilled(t *testing.T) {
	const came = 90_000
	sent, release := make(chan struct{}), make(chan struct{})
	var ranges asked
	_, f := serve(t, func(w http.ResponseWriter, r *http.Request, request int) {
		ranges.note(r)
		if request > 1 {
			whole(w, r, request)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content[:came])
		w.(http.Flusher).Flush()
		close(sent)
		<-release
	})
	defer close(release)
	path := filepath.Join(t.TempDir(), "file")
	first := process(t, f, path)
	<-sent
	for info, err := os.Stat(path + ".part"); err != nil || info.Size() < came; info, err = os.Stat(path + ".part") {
		time.Sleep(time.Millisecond) // until what was sent is on the disk
	}
	second := process(t, f, path)
	absent(t, path)
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Fatal(err)
	}
	there(t, path)
	ranges.expect(t, "", "bytes="+strconv.Itoa(came)+"-")
}
