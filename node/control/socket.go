package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxSocketPath is the longest path that every system takes for a socket:
// macOS has room for 104 bytes with the zero at the end, and listenPrivate
// needs some to make the socket under another name first.
const maxSocketPath = 90

// SocketPath returns where the node of a data folder listens: control.sock in
// it, or, when that is longer than a system allows, a name made of the folder's
// hash in the user's runtime folder. It does not touch the disk beyond
// resolving links, so node and client find the same path.
func SocketPath(dataDir string) string {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		dir = dataDir
	}
	if path := filepath.Join(dir, "control.sock"); len(path) <= maxSocketPath {
		return path
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(runtimeDir(), hex.EncodeToString(sum[:8])+".sock")
}

// listenSocket listens on a Unix socket that only this user may open. A file
// that a dead node left is replaced; a live node's is CODE_CONFLICT.
func listenSocket(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the control socket: %w", err)
	}
	if dir == runtimeDir() {
		if err := checkPrivate(dir); err != nil {
			return nil, err
		}
	}
	if err := checkStale(path); err != nil {
		return nil, err
	}
	l, err := listenPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("listening on the control socket %s: %w", path, err)
	}
	return l, nil
}

// checkStale returns an error unless nothing is at path, or the socket of a
// node that no longer listens.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the control socket: %w", err)
	}
	// Windows gives sockets no mode of their own.
	if !info.Mode().IsRegular() && info.Mode()&(fs.ModeSocket|fs.ModeIrregular) == 0 {
		return fmt.Errorf("%s is in the way of the control socket: move it elsewhere", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return wire.Errorf(wire.Code_CODE_CONFLICT, "a node is running on %s already; stop it with: ostrich down", filepath.Dir(path))
	}
	if info.Mode().IsRegular() && info.Size() > 0 {
		return fmt.Errorf("%s is in the way of the control socket: move it elsewhere", path)
	}
	return nil
}
