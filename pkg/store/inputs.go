package store

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// Inputs are all that a result depends on. The key of a result is the SHA-256 of them as canonical JSON.
type Inputs struct {
	Recipe any    // what is computed, as JSON: defaults left out (omitempty), so that a new field renames nothing; nil: nothing to say
	Seed   int64  // of all that is random
	Data   string // the digest of the data; "": none
	// Code is what computes. "": this program's build, which is its revision, else what went into the executable. In a notebook each cell is another program,
	// and so is a cell in which anything is changed: who wants results back there gives the code a name, as "v1", and another one when it computes otherwise.
	Code     string
	Versions map[string]string // what it is computed with; nil: Go, the platform, and the modules of GoMLX
	Store    *Store            // where the result is kept; nil: Default
}

// resolved are inputs with nothing left to default.
type resolved struct {
	store     *Store
	canonical []byte
	key       string
	versions  map[string]string
}

func (in Inputs) resolve() (resolved, error) {
	var err error
	if in.Code == "" {
		if in.Code, err = thisCode(); err != nil {
			return resolved{}, &ArgumentError{"code", "", "this program's build is unknown: " + err.Error(), "set Inputs.Code"}
		}
	}
	if in.Versions == nil {
		in.Versions = theseVersions()
	}
	if in.Store == nil {
		if in.Store, err = Default(); err != nil {
			return resolved{}, err
		}
	}
	data, err := canonical(map[string]any{"recipe": in.Recipe, "seed": in.Seed, "data": in.Data, "code": in.Code, "versions": in.Versions})
	if err != nil {
		return resolved{}, &ArgumentError{"recipe", fmt.Sprintf("%T", in.Recipe), err.Error(), "give what JSON can say: no functions, no NaN"}
	}
	sum := sha256.Sum256(data)
	return resolved{in.Store, data, hex.EncodeToString(sum[:]), in.Versions}, nil
}

// canonical is JSON without spaces, with the keys of all objects sorted, those of structs too, and numbers as encoding/json writes them.
func canonical(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // 64 bits do not fit a float
	var generic any
	if err := decoder.Decode(&generic); err != nil {
		return nil, err
	}
	return json.Marshal(generic)
}

// thisCode identifies the running program.
var thisCode = sync.OnceValues(func() (string, error) {
	if info, ok := debug.ReadBuildInfo(); ok {
		if code := revisionOf(info); code != "" {
			return code, nil
		}
	}
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	if id := buildID(path); id != "" {
		return "build " + id, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "executable " + string(digestOf(h)), nil
})

// buildID returns the identity that the Go linker gave an executable, a digest of all that went into it, in no time; "" where there is none. It lies in
// an ELF note: the sizes of name and content, a type, the name "Go" and the content (https://go.dev/src/cmd/internal/buildid/note.go).
func buildID(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return "" // of another system
	}
	defer f.Close()
	section := f.Section(".note.go.buildid")
	if section == nil || section.Size > 4096 {
		return ""
	}
	note, err := section.Data()
	const head = 16
	if err != nil || len(note) < head || string(note[12:head]) != "Go\x00\x00" {
		return ""
	}
	size := f.ByteOrder.Uint32(note[4:])
	if int64(size) > int64(len(note)-head) {
		return ""
	}
	return string(note[head : head+int(size)])
}

// revisionOf identifies a program by its revision, which settles its modules, and how it was built; "" where the build does not settle what was compiled.
func revisionOf(info *debug.BuildInfo) string {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["vcs.revision"] == "" || settings["vcs.modified"] != "false" {
		return ""
	}
	for _, m := range info.Deps {
		if m.Replace != nil && m.Replace.Version == "" || m.Replace == nil && m.Version == "(devel)" {
			return "" // a directory, whose content nobody knows
		}
	}
	sum := sha256.Sum256([]byte(info.String()))
	return "revision " + settings["vcs.revision"] + " build " + hex.EncodeToString(sum[:])
}

func theseVersions() map[string]string {
	v := map[string]string{"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "github.com/gomlx/") {
				if m.Replace != nil {
					m = &debug.Module{Path: m.Path, Version: m.Replace.Version, Sum: m.Replace.Sum}
				}
				v[m.Path] = m.Version
			}
		}
	}
	return v
}
