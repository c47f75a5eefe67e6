package sandbox

import "syscall"

// dieWithParent has the system kill a child when the thread that started it
// ends, whatever the child is doing.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
