package consensus

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Server is a member of the Raft group: a voter, or a standby that receives the
// log and has no vote. It is one memory of the log on one device: a device that
// lost its log folder is another server.
type Server struct {
	ID wire.DeviceID
	// Replica names the memory: 16 lower-case hex digits, or "" for a folder
	// that was made before replicas had names.
	Replica string
	Voter   bool
}

// id is what raft calls the server, and what it takes for its address: DEVICE,
// or DEVICE/REPLICA.
func (s Server) id() raft.ServerID {
	if s.Replica == "" {
		return raft.ServerID(s.ID)
	}
	return raft.ServerID(string(s.ID) + "/" + s.Replica)
}

// raft returns the server's entry in a configuration.
func (s Server) raft() raft.Server {
	suffrage := raft.Nonvoter
	if s.Voter {
		suffrage = raft.Voter
	}
	return raft.Server{Suffrage: suffrage, ID: s.id(), Address: raft.ServerAddress(s.id())}
}

// serverOf reads what id wrote. It does not check that the parts make sense.
func serverOf(id raft.ServerID) Server {
	device, replica, _ := strings.Cut(string(id), "/")
	return Server{ID: wire.DeviceID(device), Replica: replica}
}

// replicaBytes is the length of a replica's name before it is written as hex.
const replicaBytes = 8

// newReplica returns the name of a new memory.
func newReplica() string {
	var b [replicaBytes]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
