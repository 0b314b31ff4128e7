// Package fetch downloads a published file of known size and digest. Under its name it appears whole and checked, or not at all; a
// download that was interrupted goes on where it stopped.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"

	"github.com/espalier-ml/espalier/datasets/internal/fault"
)

// File is what was published.
type File struct {
	URL    string
	Size   int64
	SHA256 string // hexadecimal
}

// Options say how to download. The zero value works.
type Options struct {
	// Stall is how long nothing may come before the connection is given up. Default: 30 s.
	Stall time.Duration
	// Attempts is how many in a row may bring nothing new. Default: 4.
	Attempts int
	// Wait is the time before the second attempt; it doubles with each further one. Default: 1 s.
	Wait time.Duration
	// Progress is told the bytes that are there, of all, now and then. Default: nobody is.
	Progress func(done, total int64)
}

// Verify checks that the file at path is the published one. The error is a *fault.Error of kind ErrMissing or ErrDigest.
func (f File) Verify(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return &fault.Error{Kind: fault.ErrMissing, File: path, Expected: "a file that can be read", Came: "none", Err: err}
	}
	defer in.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(in, f.Size+1)) // more than that says no more, and may never end
	if err != nil {
		return &fault.Error{Kind: fault.ErrMissing, File: path, Expected: "a file that can be read", Came: "a failure", Err: err}
	}
	came := hex.EncodeToString(sum.Sum(nil))
	if n == f.Size && came == f.SHA256 {
		return nil
	}
	wrong := &fault.Error{Kind: fault.ErrDigest, File: path, Expected: fmt.Sprintf("%d bytes with SHA-256 %s", f.Size, f.SHA256),
		Came: fmt.Sprintf("%d bytes with %s", n, came), Remedy: "remove the file and get it again"}
	if n > f.Size {
		wrong.Came = "more bytes"
	}
	return wrong
}

// permanent marks an error that another attempt won't mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Get downloads f to path, unless it is there. Of several processes, one downloads and the others wait. What has come is kept in a
// file next to path, with ".part" behind its name, until it is whole; it is discarded when its digest is wrong. The error is a
// *fault.Error of kind ErrDownload or ErrDigest.
func Get(ctx context.Context, f File, path string, o Options) error {
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	if o.Attempts == 0 {
		o.Attempts = 4
	}
	if o.Wait == 0 {
		o.Wait = time.Second
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	failed := func(err error) error {
		return &fault.Error{Kind: fault.ErrDownload, File: f.URL, Expected: fmt.Sprintf("%d bytes", f.Size), Came: "a failure", Err: err,
			Remedy: "try again, and it goes on where it stopped; or get the file by other means and name it in Config.Path"}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return failed(err)
	}
	lock := flock.New(path + ".lock")
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return failed(err)
	}
	defer lock.Unlock()
	if err := f.Verify(path); err == nil {
		return nil
	} else if errors.Is(err, fault.ErrDigest) { // it must not stay under this name
		if err := os.Remove(path); err != nil {
			return failed(err)
		}
	}
	part, err := os.OpenFile(path+".part", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return failed(err)
	}
	defer part.Close()
	if err := f.fill(ctx, part, o); err != nil {
		return failed(err)
	}
	if err := part.Sync(); err != nil {
		return failed(err)
	}
	if err := f.Verify(part.Name()); err != nil {
		if errors.Is(err, fault.ErrDigest) {
			os.Remove(part.Name())
		}
		var typed *fault.Error
		if errors.As(err, &typed) {
			typed.File, typed.Remedy = f.URL, "nothing was kept; try again, or get the file by other means and name it in Config.Path"
		}
		return err
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return failed(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return failed(err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return failed(err)
	}
	return nil
}

// fill makes attempts until part has all bytes.
func (f File) fill(ctx context.Context, part *os.File, o Options) error {
	most, wait := int64(0), o.Wait
	for failures := 0; ; {
		err := f.attempt(ctx, part, o)
		if err == nil {
			return nil
		}
		var p permanent
		if errors.As(err, &p) || ctx.Err() != nil {
			return err
		}
		size, statErr := part.Seek(0, io.SeekEnd)
		if statErr != nil {
			return statErr
		}
		if failures++; size > most {
			most, failures, wait = size, 0, o.Wait
		}
		if failures >= o.Attempts {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
			wait *= 2
		}
	}
}

// attempt asks for what is missing and appends it to part.
func (f File) attempt(ctx context.Context, part *os.File, o Options) error {
	offset, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return permanent{err}
	}
	if offset == f.Size {
		return nil
	}
	if offset > f.Size {
		if offset, err = 0, restart(part); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(o.Stall, func() { cancel(fmt.Errorf("nothing came for %v", o.Stall)) })
	defer watchdog.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
	if err != nil {
		return permanent{err}
	}
	// Otherwise a server may compress on the way, and the sizes would be others.
	request.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		request.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return caused(ctx, err)
	}
	defer response.Body.Close()
	switch code := response.StatusCode; {
	case code == http.StatusPartialContent:
		var start int64
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-", &start); err != nil || start != offset {
			if err := restart(part); err != nil {
				return err
			}
			return fmt.Errorf("asked for bytes from %d, the server sent %q", offset, response.Header.Get("Content-Range"))
		}
	case code == http.StatusOK: // the server sends all of it
		if length := response.ContentLength; length >= 0 && length != f.Size { // or the page of a network that wants a login: what has come stays
			return permanent{fmt.Errorf("the server offers all, %d bytes of %q; %d are missing", length, response.Header.Get("Content-Type"), f.Size-offset)}
		}
		if offset > 0 {
			if offset, err = 0, restart(part); err != nil {
				return err
			}
		}
	case code == http.StatusRequestedRangeNotSatisfiable:
		if err := restart(part); err != nil {
			return err
		}
		return fmt.Errorf("the server answered %q to bytes from %d", response.Status, offset)
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout:
		return fmt.Errorf("the server answered %q", response.Status)
	default:
		return permanent{fmt.Errorf("the server answered %q", response.Status)}
	}
	if length := response.ContentLength; length >= 0 && length != f.Size-offset {
		return permanent{fmt.Errorf("the server offers %d bytes of %q, %d are missing", length, response.Header.Get("Content-Type"), f.Size-offset)}
	}
	buffer := make([]byte, 1<<17)
	for offset < f.Size {
		n, err := response.Body.Read(buffer[:min(int64(len(buffer)), f.Size-offset)])
		watchdog.Reset(o.Stall)
		if _, err := part.Write(buffer[:n]); err != nil {
			return permanent{err} // a full disk, and the like
		}
		offset += int64(n)
		o.Progress(offset, f.Size)
		if errors.Is(err, io.EOF) && offset < f.Size {
			// A connection that breaks shows as another error, so this is the end of something shorter.
			if err := restart(part); err != nil {
				return err
			}
			return permanent{fmt.Errorf("the server sent %d bytes of %q and no more", offset, response.Header.Get("Content-Type"))}
		}
		if err != nil && offset < f.Size {
			return caused(ctx, err)
		}
	}
	return nil
}

// caused says why ctx was cancelled instead of that it was.
func caused(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func restart(part *os.File) error {
	if err := part.Truncate(0); err != nil {
		return permanent{err}
	}
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return permanent{err}
	}
	return nil
}
