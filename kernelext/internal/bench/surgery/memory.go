package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// resetPeak makes the kernel forget the most memory that this process has had, and returns what it takes for it from now on: what there is.
func resetPeak() (int64, error) {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return 0, fmt.Errorf("memory can't be measured here: %w", err)
	}
	return peak()
}

// peak returns the most memory since.
func peak() (int64, error) { return status("VmHWM") }

// status reads a number of bytes that the kernel tells of this process.
func status(field string) (int64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("memory can't be measured here: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, field+":"); found {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("memory can't be measured here: the kernel does not tell %s", field)
}
