package consensus

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// What the folder says of itself lies in the stable store, beside raft's term
// and vote: whoever loses these loses its name with them.
const (
	replicaKey    = "OstrichReplica"
	generationKey = "OstrichGeneration"
)

// replicaFormat is the first command format in which the registry can hold the
// names of replicas.
const replicaFormat = 2

// generation returns the generation of the folder's log, 1 where none was noted,
// and whether there is a log, a vote or a snapshot.
func (st *stores) generation() (generation uint64, had bool, err error) {
	if had, err = raft.HasExistingState(st.logs, st.stable, st.snapshots); err != nil {
		return 0, false, err
	}
	value, err := readKey(st.stable, generationKey)
	if err != nil {
		return 0, false, err
	}
	if len(value) == 8 {
		generation = binary.BigEndian.Uint64(value)
	}
	return max(1, generation), had, nil
}

// setGeneration notes the generation of the folder's log.
func (st *stores) setGeneration(generation uint64) error {
	return st.stable.Set([]byte(generationKey), binary.BigEndian.AppendUint64(nil, generation))
}

// readKey returns nil for a key that is not there.
func readKey(stable raft.StableStore, key string) ([]byte, error) {
	value, err := stable.Get([]byte(key))
	if err != nil && err.Error() == "not found" { // as raft itself tells
		return nil, nil
	}
	return value, err
}

// identify reads which memory the folder is, and of which generation; a new
// folder is given a name. A folder that has a log and no name was made before
// replicas had names.
func (g *Group) identify(o Options) error {
	generation, had, err := g.stores.generation()
	if err != nil {
		return err
	}
	g.hadState = had
	g.generation = max(generation, o.Generation)
	g.me = Server{ID: o.Self, Voter: true}
	if g.generation != generation {
		if err := g.stores.setGeneration(g.generation); err != nil {
			return err
		}
	}
	if o.Faults.NoReplicas || state.Format < replicaFormat {
		return nil
	}
	name, err := readKey(g.stores.stable, replicaKey)
	if err != nil {
		return err
	}
	if len(name) > 0 || had {
		g.me.Replica = string(name)
		return nil
	}
	g.me.Replica = newReplica()
	return g.stores.stable.Set([]byte(replicaKey), []byte(g.me.Replica))
}

// fence keeps what must end this node's part in the group.
type fence struct {
	cut   atomic.Bool
	fault atomic.Pointer[error]

	mu         sync.Mutex
	newest     uint64 // generation that Superseded was told of
	superseded func(uint64)
}

// isCut reports whether this node takes part no more.
func (c *fence) isCut() bool { return c.cut.Load() }

// fault returns why this node takes part no more, or applies nothing; nil while
// it works.
func (g *Group) fault() error {
	if err := g.fence.fault.Load(); err != nil {
		return *err
	}
	return g.fsm.fault()
}

// cut ends all contact with other members: this node neither leads, votes nor
// follows from here on.
func (g *Group) cut() {
	g.fence.cut.Store(true)
	g.transport.Close()
	g.streams.closeConns()
	g.change()
}

// meet is told of each generation that another member names.
func (g *Group) meet(generation uint64) {
	if generation <= g.generation || generation > wire.MaxGeneration {
		return
	}
	g.fence.mu.Lock()
	news := generation > g.fence.newest
	g.fence.newest = max(g.fence.newest, generation)
	g.fence.mu.Unlock()
	if !news {
		return
	}
	g.log.Warn("the swarm has gone on without this node's log, in a newer generation: this node takes part no more with what it has",
		"generation", g.generation, "newer", generation)
	g.fence.cut.Store(true)
	if g.fence.superseded != nil {
		g.fence.superseded(generation)
	}
	g.spawn(g.cut) // the caller reads from one of the streams that end
}
