package proxy

import "syscall"

// endWithUs has the system end a process when we die, however that happens.
func endWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
