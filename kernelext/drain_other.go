//go:build !linux

package kernelext

// drainStandardOutput does nothing here: how much of a pipe is unread is known on Linux only.
func drainStandardOutput() {}
