package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// replica is what a member has beyond a worker: the pages, and its part in the
// Raft group, which may be closed and opened again while the node runs.
type replica struct {
	store *blob.Store
	pages *blob.Exchange
	// changed wakes who watches the state; capacity 1.
	changed chan struct{}
	// now is the group of the moment. While it is opened again, the closed one is
	// there still: its state can be read.
	now atomic.Pointer[openGroup]
	// reopenings are asked for here; keepGroup serves them.
	reopenings chan *reopening
}

// openGroup is the Raft group as it was opened once.
type openGroup struct {
	*consensus.Group
	// lastAtOpen is the end of the log when it was opened: once it is applied
	// again, the state is what it was before.
	lastAtOpen uint64
}

// reopening has the group closed and opened again.
type reopening struct {
	// between runs while it is closed; nil does nothing. After an error the group
	// is opened again all the same.
	between func() error
	// done is told the error of between. Capacity 1.
	done chan error
}

// group returns the group of the moment; nil on a worker.
func (n *node) group() *openGroup {
	if r := n.replica.Load(); r != nil {
		return r.now.Load()
	}
	return nil
}

// founded reports whether the state is of a swarm.
func (g *openGroup) founded() (yes bool) {
	g.Read(func(s *state.State) { yes = s.Founded() })
	return yes
}

// resumed reports whether the state is as far as it was before.
func (g *openGroup) resumed() bool {
	st := g.Status()
	return g.founded() && st.Applied >= g.lastAtOpen && st.Lag == 0
}

// openReplica opens what members have: the pages and the group's log.
func (n *node) openReplica(ctx context.Context, resumed bool) error {
	store, err := blob.Open(n.folder.path("pages"))
	if err != nil {
		return err
	}
	r := &replica{store: store, changed: make(chan struct{}, 1), reopenings: make(chan *reopening)}
	r.pages = blob.NewExchange(n.exchangeConfig(store))
	group, err := n.openLog(ctx, r, resumed)
	if err != nil {
		r.close()
		return err
	}
	r.now.Store(group)
	n.replica.Store(r)
	n.meetServers(group)
	return nil
}

// meetServers has the host look for the servers that the log names: a node that
// ended right after others joined may remember them nowhere else.
func (n *node) meetServers(g *openGroup) {
	ids := n.host.Members()
	known := len(ids)
	for _, s := range g.Servers() {
		if !slices.Contains(ids, s.ID) {
			ids = append(ids, s.ID)
		}
	}
	if len(ids) > known {
		n.host.SetMembers(ids)
	}
}

// openLog opens the log at the start of the node. One that is damaged, gone,
// or of an older generation is set aside where other members have theirs: this
// node then waits for them to make it a standby.
func (n *node) openLog(ctx context.Context, r *replica, resumed bool) (*openGroup, error) {
	if resumed {
		if err := n.renew(n.newestGeneration(ctx)); err != nil {
			return nil, err
		}
	}
	group, err := n.openGroup(r)
	if errors.Is(err, consensus.ErrDamaged) && n.hasOthers() {
		if _, err := n.setAside("damaged", err.Error()); err != nil {
			return nil, err
		}
		group, err = n.openGroup(r)
	}
	if err != nil {
		return nil, err
	}
	lost := false
	switch known := n.swarm.Load().Replica; {
	case known != "":
		lost = known != group.Replica()
	case !group.HasState():
		lost = resumed
	default:
		lost = false // an interrupted recovery has brought another one
	}
	if lost && !n.hasOthers() {
		return nil, errors.Join(wire.Errorf(wire.Code_CODE_INTERNAL,
			"the log of swarm %s is not in %s, and no other member is known that has it: restore the folder from a copy, or name an empty one with --data and join with a new invite",
			n.swarm.Load().SwarmID, n.folder.path("raft")), group.Close())
	}
	if lost {
		if group, err = n.startOver(r, group); err != nil {
			return nil, err
		}
	}
	return group, nil
}

// startOver makes a group with an empty log of one whose log is not the one that
// this device last had.
func (n *node) startOver(r *replica, group *openGroup) (*openGroup, error) {
	if !group.HasState() {
		n.noteLog("the log of this member was lost: it was not in its folder")
		return group, nil
	}
	if err := group.Close(); err != nil {
		return nil, err
	}
	if _, err := n.setAside("unknown", "it is not the one that this device had last: an old copy, or damaged"); err != nil {
		return nil, err
	}
	return n.openGroup(r)
}

// openGroup opens the folder of the log as it is.
func (n *node) openGroup(r *replica) (*openGroup, error) {
	options := consensus.Options{
		Self:         n.id.ID,
		Dir:          n.folder.path("raft"),
		Generation:   n.swarm.Load().Generation,
		Superseded:   n.heardGeneration,
		PagesMissing: n.pagesMissing,
		Streams:      n.host.RaftStreams(),
		Pages:        r.pages.Pages,
		Changed:      func() { nudge(r.changed) },
		Log:          n.log.With("part", "raft"),
	}
	injectFaults(&options, n.folder)
	group, err := consensus.Open(options)
	if err != nil {
		return nil, err
	}
	return &openGroup{Group: group, lastAtOpen: group.Status().Last}, nil
}

// hasOthers reports whether another member is known.
func (n *node) hasOthers() bool {
	for _, id := range n.host.Members() {
		if id != n.id.ID {
			return true
		}
	}
	return false
}

// setAside moves the folder of a closed log away, and says so.
func (n *node) setAside(what, why string) (kept string, err error) {
	if kept, err = consensus.SetAside(n.folder.path("raft"), what); err != nil {
		return "", fmt.Errorf("the log of this member cannot be used (%s), and setting it aside went wrong: %w", why, err)
	}
	n.noteLog(fmt.Sprintf("the log of this member was set aside in %s: %s", kept, why))
	return kept, nil
}

// noteLog tells people why this member begins with an empty log.
func (n *node) noteLog(why string) {
	n.logNote.Store(&why)
	n.announce(lineWarn, true, why+"; this device goes on with an empty one, and the other members bring it up to date")
}

// waitsForLog says why this member has no memory of the swarm; "" when it has.
func (n *node) waitsForLog() string {
	g := n.group()
	if g == nil {
		return ""
	}
	if g.resumed() {
		n.logNote.Store(nil) // it is over
		return ""
	}
	if note := n.logNote.Load(); note != nil {
		return *note
	}
	if g.Status().Last == 0 {
		return "this member has no log yet"
	}
	return ""
}

// rememberLog writes down which log this device has: the next start knows it
// again.
func (n *node) rememberLog(g *openGroup) error {
	m := *n.swarm.Load()
	if m.Replica == g.Replica() && m.Generation >= g.Generation() {
		return nil
	}
	m.Replica, m.Generation = g.Replica(), max(m.Generation, g.Generation())
	return n.rememberSwarm(&m)
}

// rememberSwarm replaces what the folder says of the swarm.
func (n *node) rememberSwarm(m *membership) error {
	if err := n.folder.remember(m); err != nil {
		return err
	}
	n.swarm.Store(m)
	return nil
}

// reopen has the group closed and opened again, with between in the middle, and
// returns its error. It is CODE_UNAVAILABLE when the node ends.
func (n *node) reopen(ctx context.Context, between func() error) error {
	q := &reopening{between: between, done: make(chan error, 1)}
	ending := wire.Errorf(wire.Code_CODE_UNAVAILABLE, "the node is ending")
	select {
	case n.replica.Load().reopenings <- q:
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ending:
		return ending
	}
	select {
	case err := <-q.done:
		return err
	case <-n.ending:
		return ending
	}
}

// openAgain serves one reopening. An error ends the node: it has no group then.
func (n *node) openAgain(r *replica, q *reopening) error {
	old := r.now.Load()
	if err := old.Close(); err != nil {
		n.log.Warn("the log was not closed in good order", "err", err)
	}
	var failed error
	if q.between != nil {
		failed = q.between()
	}
	group, err := n.openGroup(r)
	if err == nil {
		err = n.rememberLog(group)
	}
	if err != nil {
		q.done <- errors.Join(failed, err)
		return err
	}
	r.now.Store(group)
	nudge(r.changed)
	if group.Replica() != old.Replica() {
		n.worker.Link().Redial() // the coordinator hears of the new memory in the Hello
	}
	q.done <- failed
	return nil
}

func (r *replica) close() {
	r.pages.Close()
	if g := r.now.Load(); g != nil {
		g.Close()
	}
}

// nudge wakes who waits on a channel of capacity 1.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
