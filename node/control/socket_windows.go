package control

import (
	"net"
	"os"
	"path/filepath"
)

// runtimeDir is a folder of the user's own: Windows keeps one temporary folder
// for each user.
func runtimeDir() string {
	return filepath.Join(os.TempDir(), "ostrich")
}

// checkPrivate trusts the rights of the user's temporary folder.
func checkPrivate(string) error { return nil }

// listenPrivate replaces a stale socket. Windows has no mode bits: the rights
// are those of the folder.
func listenPrivate(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}
