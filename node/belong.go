package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"time"

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
	if err := n.folder.checkKey(m, n.id.Key); err != nil {
		return err
	}
	n.swarm.Store(m)
	if err := n.compareInvite(ctx, m); err != nil {
		return err
	}
	if name := n.profile.GetName(); name != m.DeviceName || m.DeviceID == "" {
		m.DeviceName, m.DeviceID = name, n.id.ID
		if err := n.folder.remember(m); err != nil {
			return err
		}
	}
	for _, id := range n.host.Members() {
		n.admitted.Store(id, struct{}{})
	}
	if parseRole(m.Role) < wire.Role_ROLE_MEMBER {
		return nil
	}
	if err := n.openReplica(ctx, true); err != nil {
		return err
	}
	return n.rememberLog(n.group())
}

// compareInvite refuses an invite of another swarm than the folder's. Which
// swarm a short form is for its maker has to say: where that cannot be reached
// now, the folder's word is enough.
func (n *node) compareInvite(ctx context.Context, m *membership) error {
	if n.cfg.Join == "" {
		return nil
	}
	invite, err := p2p.ParseInvite(n.cfg.Join)
	if err != nil {
		return err
	}
	if invite.Swarm == "" {
		resolved, err := n.resolve(ctx, invite)
		if err != nil {
			n.log.Info("this device belongs to a swarm already; what the invite is for could not be asked", "swarm", m.SwarmID, "err", err)
			return nil
		}
		invite = resolved
	}
	if invite.Swarm != m.SwarmID {
		return wire.Errorf(wire.Code_CODE_WRONG_SWARM,
			"the data folder %s belongs to swarm %s, and the invite is for swarm %s: name another folder with --data, or leave the old swarm first (ostrich leave)",
			n.folder.dir, m.SwarmID, invite.Swarm)
	}
	n.log.Info("this device belongs to the swarm already; the invite is not needed", "swarm", m.SwarmID)
	return nil
}

// resolve asks the public listener that an invite names for what its short form
// leaves out.
func (n *node) resolve(ctx context.Context, invite p2p.Invite) (p2p.Invite, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	return invite.Resolve(ctx)
}

// invite reads the configured invite, asking the public listener that it names
// for what the short forms leave out.
func (n *node) invite(ctx context.Context) (p2p.Invite, error) {
	invite, err := p2p.ParseInvite(n.cfg.Join)
	if err != nil {
		return p2p.Invite{}, err
	}
	return n.resolve(ctx, invite)
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
	return n.joined(ctx, invite, admitted)
}

// joined remembers the swarm that let this device in, before it takes part in
// it: what it promises as a voter must not be forgotten by the next start.
func (n *node) joined(ctx context.Context, invite p2p.Invite, a *wire.AdmitResponse) error {
	m := &membership{
		SwarmID: invite.Swarm, SwarmName: a.GetSwarmName(), Generation: a.GetGeneration(),
		Role: wire.RoleName(a.GetRole()), DeviceName: n.profile.GetName(), DeviceID: n.id.ID,
	}
	if parseRole(m.Role) == wire.Role_ROLE_UNSPECIFIED {
		return wire.Errorf(wire.Code_CODE_INTERNAL, "the swarm let this device in without a role")
	}
	n.swarm.Store(m)
	n.meet(invite.Peers)
	n.meet(a.GetMembers())
	// What an earlier try to found a swarm left here belongs to none.
	if err := os.RemoveAll(n.folder.path("raft")); err != nil {
		return err
	}
	if err := n.folder.remember(m); err != nil {
		return err
	}
	n.log.Info("joined", "swarm", m.SwarmID, "role", m.Role)
	if a.GetRole() < wire.Role_ROLE_MEMBER {
		return nil
	}
	if err := n.openReplica(ctx, false); err != nil {
		return err
	}
	return n.rememberLog(n.group())
}

// found makes a new swarm with this device as its admin. The root key signs
// that once, and is forgotten. A founding that was interrupted goes on, or was
// done but for swarm.json.
func (n *node) found(ctx context.Context) error {
	op, err := n.founding()
	if err != nil {
		return err
	}
	m := &membership{
		SwarmID: wire.NewSwarmID(op.GetRootKey()), SwarmName: op.GetSwarmName(), Generation: 1,
		Role: wire.RoleName(wire.Role_ROLE_ADMIN), DeviceName: n.profile.GetName(), DeviceID: n.id.ID,
	}
	n.swarm.Store(m)
	if err := n.openReplica(ctx, false); err != nil {
		return err
	}
	founded := *m
	err = n.group().Found(ctx, op)
	if wire.CodeOf(err) == wire.Code_CODE_CONFLICT {
		err = n.foundBefore(&founded)
	}
	if err != nil {
		return err
	}
	n.log.Info("founded", "swarm", founded.SwarmID, "name", founded.SwarmName)
	founded.Replica = n.group().Replica()
	return n.rememberSwarm(&founded)
}

// founding is the first command of a new swarm.
func (n *node) founding() (*wire.FoundSwarm, error) {
	root, rootKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
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
	return op, nil
}

// foundBefore fills in m from the state of a swarm that this device founded
// alone, and whose swarm.json is not there.
func (n *node) foundBefore(m *membership) error {
	ours := false
	group := n.group()
	voters := group.Voters()
	group.Read(func(s *state.State) {
		d := s.Device(n.id.ID)
		if ours = d != nil && len(voters) == 1 && voters[0] == n.id.ID; ours {
			m.SwarmID, m.SwarmName, m.Generation, m.Role = s.SwarmID(), s.SwarmName(), s.Generation(), wire.RoleName(d.Role)
		}
	})
	if !ours {
		return wire.Errorf(wire.Code_CODE_CONFLICT,
			"the data folder %s holds the log of a swarm, but swarm.json, which says of which, is not there: restore it from a copy, or name an empty folder with --data", n.folder.dir)
	}
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
			if g := n.group(); g != nil {
				return g.Voters()
			}
			return nil
		},
		Members: n.host.Members,
		Keep:    func() bool { return true },
		Names: func(h wire.Hash) (named bool) {
			g := n.group()
			if g == nil {
				return true
			}
			g.Read(func(s *state.State) { named = s.Names(h) })
			return named
		},
		Named: func() (all []wire.Hash) {
			if g := n.group(); g != nil {
				g.Read(func(s *state.State) {
					for h := range s.Pages() {
						all = append(all, h)
					}
				})
			}
			return all
		},
		Current: func() bool {
			g := n.group()
			return g != nil && g.founded() && g.Current()
		},
		FreeSpace: func() (uint64, error) { return blob.FreeSpace(n.folder.dir) },
		Log:       n.log.With("part", "pages"),
	}
}
