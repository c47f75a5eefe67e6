package state

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Bounds beside those of package wire: they keep a hostile member from growing
// the state without end.
const (
	// maxJobs bounds the jobs held, ended ones included.
	maxJobs = 100_000
	// maxPrograms bounds the programs held, those without a job included.
	maxPrograms = 100_000
	// maxInvites bounds the invites held, expired ones included.
	maxInvites = 10_000
	// maxKnown bounds the devices held and removed in sum.
	maxKnown = 10 * wire.MaxDevices
)

// State is the replicated state. One goroutine applies; queries may run
// concurrently with each other but not with Apply. Pointers that queries
// return are read-only and good until the next Apply.
type State struct {
	rootKey    []byte
	founder    wire.DeviceID
	name       string
	leaseKey   []byte
	generation uint64
	nowMS      int64
	// format is the highest of the operations that took effect.
	format uint32

	devices     map[wire.DeviceID]*Device
	deviceOrder []*Device // by ID
	removed     map[wire.DeviceID]struct{}
	invites     []*Invite // by creation
	inviteKeys  map[[32]byte]*Invite

	jobs     map[wire.JobID]*Job
	jobOrder []*Job // by creation
	openJobs []*Job // by creation
	nextSeq  uint64
	past     []PastJob
	programs map[wire.Hash]*program
	pages    pages
	life     lifetime
}

// New returns the empty state that a swarm's log starts from.
func New() *State {
	return &State{
		format:     1,
		devices:    map[wire.DeviceID]*Device{},
		removed:    map[wire.DeviceID]struct{}{},
		inviteKeys: map[[32]byte]*Invite{},
		jobs:       map[wire.JobID]*Job{},
		programs:   map[wire.Hash]*program{},
		pages:      newPages(),
	}
}

// Founded reports whether the swarm's first command has been applied.
func (s *State) Founded() bool { return s.rootKey != nil }

// SwarmID returns the swarm's ID; "" before it is founded.
func (s *State) SwarmID() wire.SwarmID {
	if !s.Founded() {
		return ""
	}
	return wire.NewSwarmID(s.rootKey)
}

// SwarmName returns the name that the founder gave the swarm, for people.
func (s *State) SwarmName() string { return s.name }

// Generation returns the swarm's generation: 1 when founded, raised by each
// recovery; 0 before it is founded.
func (s *State) Generation() uint64 { return s.generation }

// FormatInUse returns the highest format of the operations that took effect, at
// least 1: snapshots are in its layout, and programs that do not know it cannot
// follow.
func (s *State) FormatInUse() uint32 { return s.format }

// LeaseKey returns the key of the HMAC in leases: 32 bytes, nil before the
// swarm is founded.
func (s *State) LeaseKey() []byte { return s.leaseKey }

// TimeMS returns the time of the newest command applied, milliseconds since
// 1970 in UTC. It never goes back.
func (s *State) TimeMS() int64 { return s.nowMS }

// Device returns the record of a device; nil if it is unknown or removed.
func (s *State) Device(id wire.DeviceID) *Device { return s.devices[id] }

// Devices returns the devices in order of their IDs, removed ones excluded.
func (s *State) Devices() []*Device { return slices.Clone(s.deviceOrder) }

// Removed reports whether the device was removed; it can never join again.
func (s *State) Removed(id wire.DeviceID) bool {
	_, gone := s.removed[id]
	return gone
}

// Invites returns the invites in order of creation: also those expired, used
// up or revoked, until 24 h after their expiry.
func (s *State) Invites() []*Invite { return slices.Clone(s.invites) }

// InviteByKey returns the invite whose link key or code key pub is; nil if
// there is none.
func (s *State) InviteByKey(pub []byte) *Invite {
	if len(pub) != 32 {
		return nil
	}
	return s.inviteKeys[[32]byte(pub)]
}

// Job returns the job of that ID; nil if there is none.
func (s *State) Job(id wire.JobID) *Job { return s.jobs[id] }

// Jobs returns all jobs in order of creation.
func (s *State) Jobs() []*Job { return slices.Clone(s.jobOrder) }

// OpenJobs returns the jobs that have not ended, in order of creation.
func (s *State) OpenJobs() []*Job { return slices.Clone(s.openJobs) }

// Program returns the program whose SHA-256 is h, if the swarm holds it;
// otherwise nil. Programs are held while a job refers to them and 24 h more.
func (s *State) Program(h wire.Hash) *wire.Program {
	if p := s.programs[h]; p != nil {
		return p.program
	}
	return nil
}

// Names reports whether something in the state names the page.
func (s *State) Names(h wire.Hash) bool { return s.pages.refs[h] > 0 }

// Pages yields each page that the state names, once, in no particular order.
func (s *State) Pages() iter.Seq[wire.Hash] { return maps.Keys(s.pages.refs) }

// Stats counts over the life of the swarm: jobs and tasks that were purged
// since are still in it.
type Stats struct {
	// JobsTotal is the sum of the four after it.
	JobsTotal, JobsOpen, JobsDone, JobsFailed, JobsCancelled uint64
	// TasksPending counts tasks of open jobs that have not ended, leased or
	// not. TasksTotal also counts tasks that never ended because their job
	// did.
	TasksTotal, TasksPending, TasksCompleted, TasksFailed uint64
}

// lifetime holds the counters of Stats that outlive their jobs.
type lifetime struct {
	jobs                     uint64
	ended                    [Cancelled + 1]uint64 // by phase
	tasks, completed, failed uint64
}

// Stats returns the totals, at a cost of the order of the open jobs.
func (s *State) Stats() Stats {
	st := Stats{
		JobsTotal:      s.life.jobs,
		JobsOpen:       uint64(len(s.openJobs)),
		JobsDone:       s.life.ended[Done],
		JobsFailed:     s.life.ended[Failed],
		JobsCancelled:  s.life.ended[Cancelled],
		TasksTotal:     s.life.tasks,
		TasksCompleted: s.life.completed,
		TasksFailed:    s.life.failed,
	}
	for _, j := range s.openJobs {
		st.TasksPending += uint64(j.pending())
	}
	return st
}

// findDevice returns where id stands, or belongs, in the order of devices.
func (s *State) findDevice(id wire.DeviceID) (int, bool) {
	return slices.BinarySearchFunc(s.deviceOrder, id, func(d *Device, id wire.DeviceID) int {
		return strings.Compare(string(d.ID), string(id))
	})
}
