package simulation

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/coordinator"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// options say what is simulated.
type options struct {
	seed             uint64
	members, devices int
	length           time.Duration // of the time with faults
	faults           []fault       // nil means all
	// wrap stands between the coordinator and the group, to break rules.
	wrap func(coordinator.Group) coordinator.Group
	// wrapPages stands between the coordinator and the pages likewise.
	wrapPages func(coordinator.Pages) coordinator.Pages
	// clings makes coordinators go on when they lead no more.
	clings bool
	// broken is given to the groups of all members.
	broken consensus.Faults
	// realDisks puts logs into files.
	realDisks bool
	// asksNobody makes members start without asking the others of their
	// generation: what they meet has to do.
	asksNobody bool
	// lies makes all disks say that they have synced when they have not.
	lies bool
	// alter changes entries on their way to a member's disk.
	alter func(*machine) func(*raft.Log)
	// tokensProveNothing gives the forger the key of the tokens of leases.
	tokensProveNothing bool
	// lean leaves the operator and the forger out.
	lean bool
	// sandbox makes the sandbox of a machine; nil means one that knows the one
	// program of most simulations.
	sandbox func(*machine) worker.Sandbox
	// collectEvery is how often members look for pages that may go; 0 means as
	// often as real ones.
	collectEvery time.Duration
	// applied is called after each entry, on the goroutine that applies.
	applied func(*machine, *consensus.Group)
	// reuses makes clients give the IDs of removed jobs to new ones.
	reuses bool
}

// swarm is one simulated swarm.
type swarm struct {
	t                *testing.T
	options          options
	random           *rand.Rand // of the faults
	log              *slog.Logger
	net              *network
	ledger           *ledger
	id               wire.SwarmID
	dir              string
	made             int // machines
	members          []*machine
	devices          []*machine
	operator, forger *machine
	office           *office
	later            sync.WaitGroup // what starts and stops machines by itself
}

// machine is a computer: what outlives its processes.
type machine struct {
	swarm *swarm
	name  string
	id    session.Identity
	dir   string
	slots int
	start func(*machine) (process, error)
	disk  *disk // of a member's log
	// replica is the name of its memory of the log; nil before there is one.
	replica atomic.Pointer[string]
	// generation is that of the swarm, as a member's folder has it.
	generation atomic.Uint64
	skew       atomic.Int64 // of its clock, in nanoseconds
	// free is what its disk says to be free, in bytes; 0 means much.
	free atomic.Uint64

	turn sync.Mutex // held while it starts or stops
	mu   sync.Mutex
	now  process // nil while it is down
}

// process is what runs on a machine.
type process interface {
	link() *worker.Link
	kill()
	quit()
}

func newIdentity(name string) session.Identity {
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return session.Identity{ID: wire.NewDeviceID(public(key)), Key: key}
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func profile(name string) *wire.DeviceProfile {
	return &wire.DeviceProfile{
		Name: name, Type: wire.DeviceType_DEVICE_TYPE_SERVER, Format: state.Format, Version: "test",
		Capabilities: &wire.Capabilities{CpuCores: 2, MemoryGb: 4, Runtime: "wazero"},
	}
}

func (s *swarm) machine(name string, slots int, start func(*machine) (process, error)) *machine {
	s.made++
	m := &machine{
		swarm: s, name: name, id: newIdentity(name), dir: filepath.Join(s.dir, name), slots: slots, start: start,
		disk: newDisk(s.options.seed + uint64(s.made)<<32),
	}
	m.generation.Store(1)
	m.disk.lies = s.options.lies
	if s.options.alter != nil {
		m.disk.alter = s.options.alter(m)
	}
	return m
}

// voteLimit bounds how long the members of a new swarm take to vote: sessions of
// those that find nobody at first begin after pauses of up to 10 s.
const voteLimit = time.Minute

// newSwarm founds a swarm and lets all members and devices in.
func newSwarm(t *testing.T, o options, dir string) *swarm {
	t.Helper()
	if o.wrap == nil {
		o.wrap = func(g coordinator.Group) coordinator.Group { return g }
	}
	if o.wrapPages == nil {
		o.wrapPages = func(p coordinator.Pages) coordinator.Pages { return p }
	}
	s := &swarm{
		t: t, options: o, dir: dir,
		random: rand.New(rand.NewPCG(o.seed, 0)),
		log:    slog.New(slog.DiscardHandler),
		net:    newNetwork(o.seed),
		ledger: newLedger(),
	}
	for i := range o.members {
		s.members = append(s.members, s.machine(fmt.Sprintf("member-%d", i), 1, func(m *machine) (process, error) { return startMember(m) }))
	}
	for i := range o.devices {
		s.devices = append(s.devices, s.machine(fmt.Sprintf("device-%d", i), 2, func(m *machine) (process, error) { return startDevice(m) }))
	}
	if !o.lean {
		s.operator, s.forger = s.machine("operator", 0, startOperator), s.machine("forger", 0, startForger)
	}
	s.found()
	if !o.lean {
		s.office = s.newOffice()
	}
	for _, m := range s.members[1:] {
		s.admit(m, wire.Role_ROLE_MEMBER)
	}
	for _, m := range s.devices {
		s.admit(m, wire.Role_ROLE_WORKER)
	}
	// The operator counts as a member, and is none: once it is admitted it may
	// take a standby's place for the time in which the absent are waited for.
	if !within(voteLimit, s.allVote) {
		t.Fatalf("after %v not all members vote, or know it:%s", voteLimit, s.groups())
	}
	if !o.lean {
		s.admit(s.operator, wire.Role_ROLE_ADMIN)
		s.admit(s.forger, wire.Role_ROLE_WORKER)
	}
	return s
}

// groups says what each member knows of the group's servers.
func (s *swarm) groups() (text string) {
	for _, m := range s.members {
		if p := m.member(); p != nil {
			leader, term := p.group.Leader()
			text += fmt.Sprintf("\n\t%s, replica %s: %.12s… leads in term %d; %+v, servers %+v", m.name, *m.replica.Load(), leader, term, p.group.Status(), p.group.Servers())
		}
	}
	return text
}

// allVote reports whether all members know of all the voters that there have to
// be, and of none that is no more.
func (s *swarm) allVote() bool {
	for _, m := range s.members {
		p := m.member()
		if p == nil {
			return false
		}
		voters := p.group.Voters()
		if len(voters) != consensus.TargetVoters(len(s.members)) {
			return false
		}
		for _, server := range p.group.Servers() {
			at := slices.IndexFunc(s.members, func(m *machine) bool { return m.id.ID == server.ID })
			if at >= 0 && server.Replica != *s.members[at].replica.Load() {
				return false
			}
		}
	}
	return true
}

func (s *swarm) found() {
	founder, root := s.members[0], newIdentity("root").Key
	f := &wire.FoundSwarm{
		RootKey: public(root), Founder: string(founder.id.ID), Profile: profile(founder.name),
		LeaseKey: make([]byte, 32), SwarmName: "simulated",
	}
	f.Signature = ed25519.Sign(root, wire.FoundingStatement(f))
	s.id = wire.NewSwarmID(public(root))
	founder.up()
	if err := founder.member().group.Found(s.t.Context(), f); err != nil {
		s.t.Fatalf("founding: %v", err)
	}
}

// admit lets a machine in by an invite of its own, and starts it.
func (s *swarm) admit(m *machine, role wire.Role) {
	key := newIdentity("invite of " + m.name).Key
	ops := []*wire.Op{
		{Kind: &wire.Op_IssueInvite{IssueInvite: &wire.IssueInvite{
			LinkKey: public(key), Role: role, ExpiresAtMs: time.Now().Add(time.Hour).UnixMilli(),
		}}},
		{Kind: &wire.Op_AdmitDevice{AdmitDevice: &wire.AdmitDevice{Join: joinRequest(s.id, key, m.id, m.name)}}},
	}
	for _, op := range ops {
		s.propose(op)
	}
	m.up()
}

// propose commits an operation of the founder.
func (s *swarm) propose(op *wire.Op) {
	group := s.members[0].member().group
	op.Actor = string(s.members[0].id.ID)
	s.eventually(10*time.Second, "the founder commits", func() bool {
		_, term := group.Leader()
		_, err := group.Propose(s.t.Context(), term, op)
		return err == nil
	})
}

func joinRequest(swarm wire.SwarmID, invite ed25519.PrivateKey, joiner session.Identity, name string) *wire.JoinRequest {
	join := &wire.JoinRequest{
		SwarmId: swarm.Bytes(), InviteKey: public(invite), DeviceId: string(joiner.ID),
		Nonce: make([]byte, 16), Profile: profile(name),
	}
	join.InviteSignature = ed25519.Sign(invite, wire.JoinStatement(join))
	join.DeviceSignature = ed25519.Sign(joiner.Key, wire.JoinStatement(join))
	return join
}

// eventually waits for a condition.
func (s *swarm) eventually(limit time.Duration, what string, cond func() bool) {
	s.t.Helper()
	if !within(limit, cond) {
		s.t.Fatalf("after %v it is still not so that %s", limit, what)
	}
}

// within reports whether a condition comes true in time.
func within(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

func (s *swarm) memberIDs() []wire.DeviceID {
	var ids []wire.DeviceID
	for _, m := range s.members {
		ids = append(ids, m.id.ID)
	}
	return ids
}

func (s *swarm) machines() []*machine {
	all := slices.Concat(s.members, s.devices)
	if !s.options.lean {
		all = append(all, s.operator, s.forger)
	}
	return all
}

// coordinator returns the member that coordinates now; nil if none does.
func (s *swarm) coordinator() *machine {
	for _, m := range s.members {
		if p := m.member(); p != nil && p.lead.Load() != nil {
			return m
		}
	}
	return nil
}

// close stops every process.
func (s *swarm) close() {
	s.later.Wait()
	for _, m := range s.machines() {
		m.crash(false)
	}
}

// up starts a process, unless one runs.
func (m *machine) up() {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.process() != nil {
		return
	}
	m.swarm.net.start(m.id.ID)
	p, err := m.start(m)
	if err != nil {
		m.swarm.ledger.red("%s cannot start: %v", m.name, err)
		return
	}
	m.set(p)
}

// crash ends the process without a word; silent, the network says none either.
func (m *machine) crash(silent bool) {
	m.turn.Lock()
	defer m.turn.Unlock()
	p := m.process()
	if p == nil {
		return
	}
	m.set(nil)
	m.swarm.net.stop(m.id.ID, silent)
	p.kill()
}

// losePower ends the process, and what its disk has not synced is lost.
func (m *machine) losePower() {
	m.turn.Lock()
	defer m.turn.Unlock()
	m.swarm.net.stop(m.id.ID, true)
	m.swarm.ledger.count.unsynced.Add(int64(m.disk.fail()))
	p := m.process()
	if p == nil {
		return
	}
	m.set(nil)
	p.kill()
}

// profile is what the machine says of itself.
func (m *machine) profile() *wire.DeviceProfile {
	p := profile(m.name)
	if r := m.replica.Load(); r != nil {
		p.Replica = *r
	}
	return p
}

// clock is what the machine takes for the time.
func (m *machine) clock() time.Time { return time.Now().Add(time.Duration(m.skew.Load())) }

// shutdown stops the process gracefully.
func (m *machine) shutdown() {
	m.turn.Lock()
	defer m.turn.Unlock()
	p := m.process()
	if p == nil {
		return
	}
	m.set(nil)
	p.quit()
	m.swarm.net.stop(m.id.ID, false)
}

func (m *machine) set(p process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = p
}

func (m *machine) process() process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// member returns the member that runs here; nil while it is down.
func (m *machine) member() *member {
	p, _ := m.process().(*member)
	return p
}

// dialer finds the coordinator as package node does: by the last refusal, or by
// asking any member.
type dialer struct {
	machine *machine

	mu   sync.Mutex
	hint wire.DeviceID
}

func newDialer(m *machine) *dialer { return &dialer{machine: m} }

func (d *dialer) link(dial func(context.Context) (io.ReadWriteCloser, error)) worker.LinkConfig {
	m := d.machine
	return worker.LinkConfig{
		Identity: m.id,
		Dial:     dial,
		Trust:    func(wire.DeviceID) error { return nil },
		Hello: func() *wire.Hello {
			return &wire.Hello{SwarmId: m.swarm.id.Bytes(), Generation: m.generation.Load(), Profile: m.profile()}
		},
		Refused: func(r *wire.Refusal) { d.set(wire.DeviceID(r.GetCoordinator().GetId())) },
	}
}

func (d *dialer) set(id wire.DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hint = id
}

func (d *dialer) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	d.mu.Lock()
	to := d.hint
	d.mu.Unlock()
	self := d.machine.id.ID
	for to == "" || to == self {
		if len(d.machine.swarm.members) == 1 && self == d.machine.swarm.members[0].id.ID {
			return nil, fmt.Errorf("no coordinator is known yet")
		}
		to = d.machine.swarm.members[rand.IntN(len(d.machine.swarm.members))].id.ID
	}
	return d.dialTo(ctx, to)
}

func (d *dialer) dialTo(ctx context.Context, to wire.DeviceID) (io.ReadWriteCloser, error) {
	c, err := d.machine.swarm.net.dial(ctx, d.machine.id.ID, to, sessionService)
	if err != nil {
		d.set("")
		return nil, err
	}
	return c, nil
}

// refuse says that this member does not coordinate, and who does.
func (d *dialer) refuse(ctx context.Context, c net.Conn, group *consensus.Group) {
	refusal := &wire.Refusal{Error: &wire.Error{Code: wire.Code_CODE_NOT_COORDINATOR, Text: "this node does not coordinate"}}
	if id, _ := group.Leader(); id != "" && id != d.machine.id.ID {
		refusal.Coordinator = &wire.Peer{Id: string(id)}
	}
	session.Refuse(ctx, c, refusal)
}
