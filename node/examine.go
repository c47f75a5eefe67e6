package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Examine looks at a data folder on which no node runs, and at the addresses
// that one would use: what is wrong, and what to do. It changes nothing.
func Examine(c Config) []*wire.Finding {
	var f findings
	f.add(LevelProblem, "node", "no node is running on "+c.DataDir, "ostrich up --data "+c.DataDir)
	info, err := os.Stat(c.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.add(LevelOK, "folder", "the data folder is not there: a new one is made by the first start", "")
	case err != nil:
		f.add(LevelProblem, "folder", fmt.Sprintf("the data folder cannot be read: %v", err), "name another with --data, or give this user the right to it")
	case !info.IsDir():
		f.add(LevelProblem, "folder", c.DataDir+" is no folder", "name another with --data")
	default:
		examineFolder(&f, &folder{dir: c.DataDir})
	}
	examineAddresses(&f, c)
	return f
}

func examineFolder(f *findings, dir *folder) {
	examineWritable(f, dir)
	m, err := dir.membership()
	examineKey(f, dir, m)
	switch {
	case err != nil:
		f.add(LevelProblem, "swarm", err.Error(), "")
	case m == nil:
		f.ok("swarm", "this folder belongs to no swarm: the first start founds one, or joins one with --join")
	default:
		f.ok("swarm", "this device, %s, is %s of swarm %s (%s), generation %d", m.DeviceName, m.Role, m.SwarmName, m.SwarmID, m.Generation)
		examineLog(f, dir, m)
	}
	diagnoseDisk(f, dir.dir)
	diagnoseKept(f, dir.dir)
}

// examineKey looks whether the key is one, and that of the folder's device. No
// membership is known of a folder that belongs to no swarm.
func examineKey(f *findings, dir *folder, m *membership) {
	path := dir.path("key")
	if !exists(path) {
		return
	}
	key, err := p2p.LoadOrCreateKey(path)
	if err == nil && m != nil {
		err = dir.checkKey(m, key)
	}
	if err != nil {
		f.add(LevelProblem, "key", err.Error(), "restore it from a copy; without it this machine is another device")
	}
}

// examineWritable looks whether a node could write to the folder, and none does.
func examineWritable(f *findings, dir *folder) {
	lock, err := os.OpenFile(dir.path("lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.add(LevelProblem, "folder", fmt.Sprintf("the data folder cannot be written: %v", err), "give this user the right to it, or name another with --data")
		return
	}
	defer lock.Close()
	if lockFile(lock) != nil {
		f.add(LevelProblem, "folder", "another process holds "+dir.dir+", and does not answer on its socket: a node that is starting, or ending, or hangs", "wait a moment; if it stays, end that process")
		return
	}
	f.ok("folder", "%s can be written, and no node uses it", dir.dir)
}

// examineLog looks whether a member's log is there.
func examineLog(f *findings, dir *folder, m *membership) {
	if parseRole(m.Role) < wire.Role_ROLE_MEMBER {
		return
	}
	path := filepath.Join(dir.path("raft"), "raft.db")
	info, err := os.Stat(path)
	const mend = "if other members are up, start the node: they bring it up to date; else restore the folder from a copy"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.add(LevelProblem, "log", path+" is not there: this member has lost its memory of the swarm", mend)
	case err != nil:
		f.add(LevelProblem, "log", fmt.Sprintf("%s cannot be read: %v", path, err), mend)
	default:
		f.ok("log", "%s is there, %.1f MiB; the start of the node reads and checks it", path, float64(info.Size())/(1<<20))
	}
	if known := rememberedMembers(dir); known == 0 {
		f.add(LevelWarning, "members", "no member's address is remembered: this node finds others only by mDNS, or when they dial it", "")
	} else {
		f.ok("members", "the addresses of %d members are remembered", known)
	}
}

// rememberedMembers counts the members in peers.json.
func rememberedMembers(dir *folder) int {
	var peers struct {
		Members []json.RawMessage `json:"members"`
	}
	b, err := os.ReadFile(dir.path("peers.json"))
	if err != nil || p2p.Unseal(b, &peers) != nil {
		return 0
	}
	return len(peers.Members)
}

// examineAddresses looks whether the addresses of a node are free.
func examineAddresses(f *findings, c Config) {
	p2pAddress := c.P2P
	if p2pAddress == "" {
		p2pAddress = p2p.DefaultListen
	}
	for _, a := range []struct{ flag, address string }{{"--p2p", p2pAddress}, {"--public", c.Public}, {"--control", c.Control}} {
		l, err := net.Listen("tcp", a.address)
		if err != nil {
			f.add(LevelWarning, "address", fmt.Sprintf("%s, the default of %s, cannot be used now: %v", a.address, a.flag, rootCause(err)),
				"start the node with another one, such as "+a.flag+" 0.0.0.0:0 (any free port)")
			continue
		}
		l.Close()
		f.ok("address", "%s (%s) is free", a.address, a.flag)
	}
}
