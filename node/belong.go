package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"time"

	"github.com/ostrich-legs/ostrich/consensus"
	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/p2p"
	"github.com/ostrich-legs/ostrich/p2p/blob"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// resolveLimit bounds what is asked of the listener that an invite names.
const resolveLimit = 15 * time.Second

// belong makes this device belong to a swarm: it resumes what the folder
// remembers, joins by invite, or founds a new one.
func (n *node) belong(ctx context.Context) error {
	m, err := n.folder.membership()
	if err != nil {
		return err
	}
	switch {
	case m != nil:
		return n.resume(ctx, m)
	case n.cfg.Join != "":
		return n.join(ctx)
	default:
		return n.found(ctx)
	}
}

// resume goes on with the swarm that the folder belongs to. An invite of the
// same swarm does nothing more; one of another is refused.
func (n *node) resume(ctx context.Context, m *membership) error {
	n.swarm.Store(m)
	if n.cfg.Join != "" {
		invite, err := n.invite(ctx)
		if err != nil {
			return err
		}
		if invite.Swarm != m.SwarmID {
			return wire.Errorf(wire.Code_CODE_WRONG_SWARM,
				"the data folder %s belongs to swarm %s, and the invite is for swarm %s: name another folder with --data, or leave the old swarm first (ostrich leave)",
				n.folder.dir, m.SwarmID, invite.Swarm)
		}
		n.log.Info("this device belongs to the swarm already; the invite is not needed", "swarm", m.SwarmID)
	}
	for _, id := range n.host.Members() {
		n.admitted.Store(id, struct{}{})
	}
	if parseRole(m.Role) < wire.Role_ROLE_MEMBER {
		return nil
	}
	return n.openReplica()
}

// invite reads the configured invite, asking the public listener that it names
// for what the short forms leave out.
func (n *node) invite(ctx context.Context) (p2p.Invite, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	invite, err := p2p.ParseInvite(n.cfg.Join)
	if err != nil {
		return p2p.Invite{}, err
	}
	return invite.Resolve(ctx)
}

// join joins by invite through the first member that answers.
func (n *node) join(ctx context.Context) error {
	invite, err := n.invite(ctx)
	if err != nil {
		return err
	}
	admitted, err := n.host.JoinAny(ctx, invite.Peers, func(nonce []byte) (*wire.JoinRequest, error) {
		return p2p.SignJoin(&wire.JoinRequest{
			SwarmId: invite.Swarm.Bytes(),
			Nonce:   nonce,
			Profile: n.profile,
		}, invite.Key(), n.id.Key)
	})
	if err != nil {
		return err
	}
	return n.joined(invite, admitted)
}

// joined remembers the swarm that let this device in.
func (n *node) joined(invite p2p.Invite, a *wire.AdmitResponse) error {
	m := &membership{
		SwarmID: invite.Swarm, SwarmName: a.GetSwarmName(), Generation: a.GetGeneration(), Role: wire.RoleName(a.GetRole()),
	}
	if parseRole(m.Role) == wire.Role_ROLE_UNSPECIFIED {
		return wire.Errorf(wire.Code_CODE_INTERNAL, "the swarm let this device in without a role")
	}
	n.swarm.Store(m)
	n.meet(invite.Peers)
	n.meet(a.GetMembers())
	if a.GetRole() >= wire.Role_ROLE_MEMBER {
		// What an earlier try left here belongs to no swarm.
		if err := os.RemoveAll(n.folder.path("raft")); err != nil {
			return err
		}
		if err := n.openReplica(); err != nil {
			return err
		}
	}
	n.log.Info("joined", "swarm", m.SwarmID, "role", m.Role)
	return n.folder.remember(m)
}

// found makes a new swarm with this device as its admin. The root key signs
// that once, and is forgotten.
func (n *node) found(ctx context.Context) error {
	// A founding that was interrupted left a group without a swarm.
	if err := os.RemoveAll(n.folder.path("raft")); err != nil {
		return err
	}
	root, rootKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	leaseKey := make([]byte, 32)
	rand.Read(leaseKey)
	name := n.cfg.SwarmName
	if name == "" {
		name = n.profile.GetName()
	}
	op := &wire.FoundSwarm{
		RootKey: root, Founder: string(n.id.ID), Profile: n.profile, LeaseKey: leaseKey, SwarmName: name,
	}
	op.Signature = ed25519.Sign(rootKey, wire.FoundingStatement(op))
	m := &membership{SwarmID: wire.NewSwarmID(root), SwarmName: name, Generation: 1, Role: wire.RoleName(wire.Role_ROLE_ADMIN)}
	n.swarm.Store(m)
	if err := n.openReplica(); err != nil {
		return err
	}
	if err := n.replica.Load().group.Found(ctx, op); err != nil {
		return err
	}
	n.log.Info("founded", "swarm", m.SwarmID, "name", name)
	return n.folder.remember(m)
}

// openReplica opens what members have: the group's log and the pages.
func (n *node) openReplica() error {
	store, err := blob.Open(n.folder.path("pages"))
	if err != nil {
		return err
	}
	r := &replica{changed: make(chan struct{}, 1), store: store}
	r.pages = blob.NewExchange(n.exchangeConfig(store))
	r.group, err = consensus.Open(consensus.Options{
		Self:    n.id.ID,
		Dir:     n.folder.path("raft"),
		Streams: n.host.RaftStreams(),
		Pages:   r.pages.Pages,
		Changed: func() {
			select {
			case r.changed <- struct{}{}:
			default:
			}
		},
		Log: n.log.With("part", "raft"),
	})
	if err != nil {
		r.close()
		return err
	}
	r.lastAtOpen = r.group.Status().Last
	n.replica.Store(r)
	return nil
}

// exchangeConfig tells the pages who votes and what the state names. The group
// opens after the exchange, which it tells of pages: until then nobody votes
// and everything may be named.
func (n *node) exchangeConfig(store *blob.Store) blob.Config {
	return blob.Config{
		Self:  n.id.ID,
		Store: store,
		Dial: func(ctx context.Context, id wire.DeviceID) (net.Conn, error) {
			return n.host.Open(ctx, id, p2p.ProtocolPage)
		},
		Voters: func() []wire.DeviceID {
			if r := n.replica.Load(); r != nil {
				return r.group.Voters()
			}
			return nil
		},
		Members: n.host.Members,
		Keep:    func() bool { return true },
		Names: func(h wire.Hash) (named bool) {
			r := n.replica.Load()
			if r == nil {
				return true
			}
			r.group.Read(func(s *state.State) { named = s.Names(h) })
			return named
		},
		Named: func() (all []wire.Hash) {
			if r := n.replica.Load(); r != nil {
				r.group.Read(func(s *state.State) {
					for h := range s.Pages() {
						all = append(all, h)
					}
				})
			}
			return all
		},
		Current: func() bool {
			r := n.replica.Load()
			return r != nil && r.group.Status().Applied >= r.lastAtOpen
		},
		FreeSpace: func() (uint64, error) { return blob.FreeSpace(n.folder.dir) },
		Log:       n.log.With("part", "pages"),
	}
}
