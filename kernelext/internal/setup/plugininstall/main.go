// Command plugininstall installs XLA's CPU plugin by go-xla's own installer, for platforms that the pinned wheel is not made for.
package main

import (
	"fmt"
	"os"

	"github.com/gomlx/go-xla/installer"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: plugininstall DIRECTORY")
		os.Exit(2)
	}
	if err := installer.CPUAutoInstall(os.Args[1], false, installer.Quiet); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
