package node

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// folder is a node's data folder, locked against a second node.
type folder struct {
	dir  string
	lock *os.File
}

// membership is what swarm.json keeps: to which swarm the folder belongs.
type membership struct {
	SwarmID   wire.SwarmID `json:"swarmId"`
	SwarmName string       `json:"swarmName"`
	// DeviceID is whose folder it is: another key than its own is a damaged or a
	// mistaken one. "" in files of versions before it.
	DeviceID   wire.DeviceID `json:"deviceId,omitempty"`
	Generation uint64        `json:"generation"`
	// Replica is the log that a member had last; "" where that is not known.
	Replica string `json:"replica,omitempty"`
	// Role is what the device was admitted as: "worker", "member" or "admin".
	Role string `json:"role"`
	// DeviceName is the name that the device went by last.
	DeviceName string `json:"deviceName"`
}

// openFolder makes the folder if need be, and locks it.
func openFolder(dir string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INTERNAL, "the data folder %s cannot be made (%v); name another with --data", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INTERNAL, "the data folder %s cannot be written (%v); name another with --data", dir, err)
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, wire.Errorf(wire.Code_CODE_CONFLICT,
			"the data folder %s is in use by another node; stop that one (ostrich down --data %s) or name another folder with --data", dir, dir)
	}
	return &folder{dir: dir, lock: lock}, nil
}

func (f *folder) close() { f.lock.Close() }

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// exists reports whether there is something at a path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// membership reads swarm.json; nil if the folder belongs to no swarm yet.
func (f *folder) membership() (*membership, error) {
	b, err := os.ReadFile(f.path("swarm.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	m := &membership{}
	if err == nil {
		err = p2p.Unseal(b, m)
	}
	if err == nil && (m.SwarmID.Bytes() == nil || parseRole(m.Role) == wire.Role_ROLE_UNSPECIFIED) {
		err = errors.New("it names no swarm")
	}
	if err != nil {
		return nil, wire.Errorf(wire.Code_CODE_INTERNAL,
			"%s is damaged (%v): restore it from a copy, or join again with an empty data folder and a new invite", f.path("swarm.json"), err)
	}
	return m, nil
}

// checkKey refuses a key that is not that of the device whose folder it is.
func (f *folder) checkKey(m *membership, key ed25519.PrivateKey) error {
	id := wire.NewDeviceID(publicKey(key))
	if m.DeviceID == "" || m.DeviceID == id {
		return nil
	}
	return wire.Errorf(wire.Code_CODE_INTERNAL,
		"%s is not the key of device %s, whose data folder this is: restore it from a copy, or join again with an empty data folder and a new invite",
		f.path("key"), m.DeviceID.Short())
}

// name is what the device is called: as asked for, else as before, else as the
// host is.
func (f *folder) name(asked string) string {
	if asked != "" {
		return asked
	}
	if m, err := f.membership(); err == nil && m != nil && wire.CheckName(m.DeviceName) == nil {
		return m.DeviceName
	}
	return defaultName()
}

// remember writes swarm.json.
func (f *folder) remember(m *membership) error {
	b, err := p2p.Seal(m)
	if err != nil {
		return err
	}
	return p2p.WriteFile(f.path("swarm.json"), b)
}

// forget removes all that ties the folder to a swarm, the logs that were set
// aside and the device's key included: a key that has left a swarm cannot join
// it again.
func (f *folder) forget() error {
	names := []string{"swarm.json", "raft", "pages", "programs", "work", "peers.json", "ports.json", "key", "control.token", "metrics.token"}
	all, err := os.ReadDir(f.dir)
	problems := []error{err}
	for _, e := range all {
		if strings.HasPrefix(e.Name(), "raft.") {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		if err := os.RemoveAll(f.path(name)); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// parseRole reads a role as flags and files have it.
func parseRole(s string) wire.Role {
	for _, r := range []wire.Role{wire.Role_ROLE_WORKER, wire.Role_ROLE_MEMBER, wire.Role_ROLE_ADMIN} {
		if wire.RoleName(r) == s {
			return r
		}
	}
	return wire.Role_ROLE_UNSPECIFIED
}
