package archive_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/espalier-ml/espalier/pkg/store/archive"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Two files are packed and unpacked; unpacked once more, they would replace what is there, which is refused.
func Example() {
	text := func(name, content string) archive.File {
		return archive.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
	}
	var packed bytes.Buffer
	must(archive.Write(&packed, []archive.File{text("runs/records.jsonl", "{}\n"), text("README", "hello")}))

	dir, err := os.MkdirTemp("", "")
	must(err)
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	must(err)
	defer root.Close()
	names, err := archive.Extract(bytes.NewReader(packed.Bytes()), root, archive.Limits{})
	must(err)
	fmt.Println(packed.Len(), names)
	_, err = archive.Extract(bytes.NewReader(packed.Bytes()), root, archive.Limits{})
	fmt.Println(err)
	// Output:
	// 3072 [README runs/records.jsonl]
	// "README" in the archive is there already; unpack into an empty directory
}
