package node

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// viewLimit bounds how long a status waits for the coordinator: status answers
// within a second, quorum or not.
const viewLimit = 600 * time.Millisecond

// viewCache is the newest view of the coordinator's that this node has.
type viewCache struct {
	mu   sync.Mutex
	view *wire.View
	at   time.Time
}

func (c *viewCache) put(v *wire.View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view, c.at = v, time.Now()
}

func (c *viewCache) get() (*wire.View, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view == nil {
		return nil, 0
	}
	return c.view, time.Since(c.at)
}

// GetStatus says what this node knows, quorum or not.
func (s *service) GetStatus(ctx context.Context, _ *connect.Request[wire.GetStatusRequest]) (*connect.Response[wire.GetStatusResponse], error) {
	if err := s.opened(); err != nil {
		return nil, err
	}
	n := s.node
	quorum := n.refreshView(ctx)
	m := n.swarm.Load()
	st := &wire.Status{
		SwarmId:        string(m.SwarmID),
		Name:           n.profile.GetName(),
		DeviceId:       string(n.id.ID),
		Role:           parseRole(m.Role),
		Quorum:         quorum,
		P2PAddresses:   n.host.Addresses(),
		PublicAddress:  n.public.address(),
		ControlAddress: n.control.Address(),
		Version:        n.cfg.Version,
		Pid:            int32(os.Getpid()),
	}
	if w := n.welcome.Load(); w != nil {
		st.Name, st.Role = w.GetDeviceName(), w.GetRole()
	}
	st.BytesStored = n.worker.Status().ProgramBytes
	if r := n.replica.Load(); r != nil {
		n.describeReplica(r, st)
	}
	view, age := n.view.get()
	if !quorum {
		view = n.localView(view)
	}
	st.View, st.ViewAgeMs = view, age.Milliseconds()
	st.Warnings = append(n.ownWarnings(), warnings(st)...)
	return connect.NewResponse(&wire.GetStatusResponse{Status: st}), nil
}

// describeReplica says what this node's memory of the swarm holds.
func (n *node) describeReplica(r *replica, st *wire.Status) {
	g, pages := r.now.Load(), r.pages.Status()
	log := g.Status()
	st.BytesStored += pages.StoredBytes
	st.LogIndex, st.Applied, st.Lag, st.PagesMissing = log.Last, log.Applied, log.Lag, uint64(pages.Missing)
	g.Read(func(s *state.State) {
		if d := s.Device(n.id.ID); d != nil {
			st.Name, st.Role = d.Name, d.Role
		}
	})
}

// refreshView asks the coordinator for its view; false if it does not answer.
func (n *node) refreshView(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, viewLimit)
	defer cancel()
	out, err := n.worker.Link().Call(ctx, &wire.Request{Kind: &wire.Request_GetView{GetView: &wire.GetViewRequest{}}})
	if err != nil {
		return false
	}
	n.view.put(out.GetGetView().GetView())
	return true
}

// localView is what a node without a coordinator knows by itself; what only a
// coordinator counts is as in before, the newest view that it has had, if any.
func (n *node) localView(before *wire.View) *wire.View {
	m := n.swarm.Load()
	v := &wire.View{
		Generation: m.Generation, SwarmName: m.SwarmName, RunState: "IDLE",
		Stats: &wire.Stats{GlobalThrottle: 100}, Resources: &wire.Resources{},
	}
	if before != nil {
		v.Stats, v.Resources, v.Term = before.GetStats(), before.GetResources(), before.GetTerm()
		if n.group() == nil {
			v.Voters, v.Standbys, v.Committed, v.Format = before.GetVoters(), before.GetStandbys(), before.GetCommitted(), before.GetFormat()
			v.MemberViews = before.GetMemberViews()
		}
	}
	for _, id := range n.host.Members() {
		v.Members = append(v.Members, string(id))
	}
	if g := n.group(); g != nil {
		log := g.Status()
		v.Term, v.Committed, v.Format = log.Term, log.Committed, g.Format()
		v.Voters, v.Standbys = texts(log.Voters), texts(log.Standbys)
		if !slices.Contains(v.Members, string(n.id.ID)) {
			v.Members = append(v.Members, string(n.id.ID))
		}
		g.Read(func(s *state.State) {
			for _, d := range s.Devices() {
				if d.Role >= wire.Role_ROLE_MEMBER {
					v.MemberViews = append(v.MemberViews, &wire.MemberView{
						Id: string(d.ID), Name: d.Name, SilentMs: -1, Version: d.Profile.GetVersion(), Format: d.Profile.GetFormat(),
						Voter: slices.Contains(log.Voters, d.ID), Standby: slices.Contains(log.Standbys, d.ID),
					})
				}
			}
		})
	}
	slices.Sort(v.Members)
	return v
}

func texts(ids []wire.DeviceID) (out []string) {
	for _, id := range ids {
		out = append(out, string(id))
	}
	return out
}
