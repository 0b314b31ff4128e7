//go:build !linux

package proxy

import "syscall"

// endWithUs does nothing here: only Linux can do it.
func endWithUs(*syscall.SysProcAttr) {}
