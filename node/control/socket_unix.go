//go:build unix

package control

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// runtimeDir is the user's own folder for sockets. It depends on nothing but
// the user, so that a node and a client started in different ways agree.
func runtimeDir() string {
	uid := strconv.Itoa(os.Getuid())
	if run := filepath.Join("/run/user", uid); isDir(run) {
		return filepath.Join(run, "ostrich")
	}
	return "/tmp/ostrich-" + uid
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// checkPrivate returns an error unless dir is a folder that only this user can
// enter: one in /tmp may have been made by somebody else.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("looking at the runtime folder: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s must be a folder that only you can enter (mode 0700), for the control socket; or give a data folder with a shorter path", dir)
	}
	return nil
}

// listenPrivate makes the socket in a folder that nobody else can enter, takes
// the rights away, and only then moves it to its place, over a stale one.
func listenPrivate(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".c")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	l, err := net.Listen("unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(made, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	if err := os.Rename(made, path); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
