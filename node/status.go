package node

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

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
		st.BytesStored += r.pages.Status().StoredBytes
		r.group.Read(func(s *state.State) {
			if d := s.Device(n.id.ID); d != nil {
				st.Name, st.Role = d.Name, d.Role
			}
		})
	}
	view, age := n.view.get()
	if view == nil {
		view = n.localView()
	}
	if !quorum {
		view = proto.CloneOf(view) // the cache's stays as it is
		view.Coordinator = ""
	}
	st.View, st.ViewAgeMs = view, age.Milliseconds()
	st.Warnings = warnings(st)
	if r := n.replica.Load(); r != nil {
		if err := r.pages.Space(); err != nil {
			st.Warnings = append(st.Warnings, err.Error())
		}
	}
	return connect.NewResponse(&wire.GetStatusResponse{Status: st}), nil
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

// localView is what a node without a coordinator knows by itself.
func (n *node) localView() *wire.View {
	m := n.swarm.Load()
	v := &wire.View{
		Generation: m.Generation, SwarmName: m.SwarmName, RunState: "IDLE",
		Stats: &wire.Stats{GlobalThrottle: 100}, Resources: &wire.Resources{},
	}
	for _, id := range n.host.Members() {
		v.Members = append(v.Members, string(id))
	}
	if r := n.replica.Load(); r != nil {
		_, v.Term = r.group.Leader()
		for _, id := range r.group.Voters() {
			v.Voters = append(v.Voters, string(id))
		}
		if !slices.Contains(v.Members, string(n.id.ID)) {
			v.Members = append(v.Members, string(n.id.ID))
		}
	}
	slices.Sort(v.Members)
	return v
}

// warnings says in words what people should know about a swarm that stands as
// this status shows.
func warnings(st *wire.Status) (out []string) {
	if !st.GetQuorum() {
		out = append(out, "no coordinator answers: devices keep their results and go on trying; bring more members up, or check the network")
	}
	switch n := len(st.GetView().GetMembers()); {
	case n == 1:
		out = append(out, "this swarm has one member: if that machine is lost, so are its jobs and its list of devices. Add members with: ostrich invite --role member")
	case n == 2:
		out = append(out, fmt.Sprintf("this swarm has two members and %d voter: the loss of the voter stops it. With a third member any one machine may vanish: ostrich invite --role member", len(st.GetView().GetVoters())))
	}
	return out
}
