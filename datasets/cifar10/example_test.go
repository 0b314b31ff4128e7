package cifar10_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/datasets/cifar10"
)

// Nothing is fetched unless Download says so: without a local copy the error says what can be done.
func ExampleOpen() {
	if err := os.Unsetenv(cifar10.PathEnv); err != nil {
		log.Fatal(err)
	}
	_, err := cifar10.Open(cifar10.Config{CacheDir: filepath.Join(os.TempDir(), "no", "such", "directory")})
	var missing *cifar10.Error
	if errors.Is(err, cifar10.ErrMissing) && errors.As(err, &missing) {
		fmt.Println(missing.Remedy)
	}
	// Output:
	// set Config.Download to get https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (170 MB), or name a copy in Config.Path
}
