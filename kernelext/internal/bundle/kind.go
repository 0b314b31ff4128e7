package bundle

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
)

// maskMagic begins the files that pkg/mask saves.
const maskMagic = "ESPMASK1"

const toSafetensors = "load it where you trust it, and save it as safetensors"

// KindError says that a file is nothing that a bundle holds.
type KindError struct{ Problem, Remedy string }

func (e *KindError) Error() string { return e.Problem + "; " + e.Remedy }

var (
	pickleExtensions = []string{".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill"}
	resultExtensions = []string{".json", ".csv", ".md", ".txt", ".png", ".npy", ".npz"}
)

// kindOf returns the role that a file has by its name and content. Those who export and those who open ask the same, so a bundle can't
// call something by the role of something else.
//
// The error is a *KindError: of a pickle first of all, which is a program that whoever loads it runs.
func kindOf(name string, content io.ReaderAt, size int64) (Role, error) {
	head := make([]byte, min(size, 8))
	if n, err := content.ReadAt(head, 0); err != nil && (n < len(head) || !errors.Is(err, io.EOF)) {
		return "", err
	}
	base, extension := path.Base(name), strings.ToLower(path.Ext(name))
	pickle := func(what string) (Role, error) { return "", &KindError{"is a pickle (" + what + ")", toSafetensors} }
	switch {
	case slices.Contains(pickleExtensions, extension):
		return pickle("by its name")
	case len(head) >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5:
		return pickle(fmt.Sprintf("protocol %d", head[1]))
	}
	// Programs find a zip file by its end, whatever it starts with.
	isZip, what := zipped(content, size)
	startsAsZip := strings.HasPrefix(string(head), "PK\x03\x04") || strings.HasPrefix(string(head), "PK\x05\x06")
	switch {
	case what != "":
		return pickle(what)
	case startsAsZip && !isZip:
		return pickle("or may be one, in a damaged zip file")
	case startsAsZip && extension != ".npz":
		return "", &KindError{"is a zip file", "pack what is in it instead"}
	case extension == ".npz" && !isZip:
		return "", &KindError{"is no zip file, as .npz files are", "leave it out"}
	case extension == ".npy":
		if !plainArray(io.NewSectionReader(content, 0, size)) {
			return pickle("an array that is not of plain numbers")
		}
	}
	switch {
	case extension == ".ipynb":
		return Notebook, nil
	case string(head) == maskMagic:
		return Masks, nil
	case extension == ".jsonl":
		return Records, nil
	case extension == ".json" && path.Base(path.Dir(name)) == "manifests":
		return Manifest, nil
	case slices.Contains(resultExtensions, extension) && !strings.HasPrefix(base, "."):
		return Result, nil
	}
	return "", &KindError{"is of no kind that a bundle holds", "results are " + strings.Join(resultExtensions, " ")}
}

// zipped tells whether a file is a zip file, and what in it is a pickle, or "".
func zipped(content io.ReaderAt, size int64) (is bool, pickle string) {
	z, err := zip.NewReader(content, size)
	if err != nil {
		return false, ""
	}
	for _, f := range z.File {
		extension := strings.ToLower(path.Ext(f.Name))
		switch {
		case slices.Contains(pickleExtensions, extension):
			return true, fmt.Sprintf("%.80q in a zip file", path.Base(f.Name)) // data.pkl is how PyTorch saves
		case extension != ".npy":
			continue
		}
		if r, err := f.Open(); err != nil || !plainArray(r) || r.Close() != nil {
			return true, fmt.Sprintf("%.80q in a zip file, an array that is not of plain numbers", path.Base(f.Name))
		}
	}
	return true, ""
}

// plainHeader is the header that NumPy writes for an array of numbers (numpy.lib.format). Other spellings are no numbers for sure: NumPy evaluates the header as
// Python's literals, in which objects can be written in many ways.
var plainHeader = regexp.MustCompile(`^\{'descr': '[<>|][biufc][0-9]{1,2}', 'fortran_order': (True|False), 'shape': \([0-9, ]*\), \}\s*$`)

// plainArray tells whether an .npy file is of numbers, and not of objects, which NumPy pickles.
func plainArray(r io.Reader) bool {
	start := make([]byte, 10) // magic, version, length of the header (uint16, little-endian)
	if _, err := io.ReadFull(r, start); err != nil || string(start[:8]) != "\x93NUMPY\x01\x00" {
		return false
	}
	header := make([]byte, int(start[8])|int(start[9])<<8)
	_, err := io.ReadFull(r, header)
	return err == nil && plainHeader.Match(header)
}
