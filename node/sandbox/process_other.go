//go:build !linux

package sandbox

import "syscall"

// dieWithParent asks nothing of systems that have no such thing: there a child
// ends when its stdin does.
func dieWithParent() *syscall.SysProcAttr { return nil }
