package simulation

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// invite issues invites of few uses until ctx ends, lets more devices than that
// try to join by each of them at one time, and revokes some meanwhile.
func (s *swarm) invite(ctx context.Context) {
	for round := 0; ctx.Err() == nil; round++ {
		s.inviteOnce(ctx, round)
		sleep(ctx, 25*time.Second)
	}
}

func (s *swarm) inviteOnce(ctx context.Context, round int) {
	name := fmt.Sprintf("guest-%d", round)
	key := newIdentity("invite " + name).Key
	uses := 1 + round%3
	// An invite is its maker's: of another member, the same would be a conflict.
	maker := s.members[rand.IntN(len(s.members))]
	h := s.ledger.history
	anyone := func(ctx context.Context, r *wire.Request) (*wire.Response, error) { return s.ask(ctx, nil, r) }
	act := func(ask func(context.Context, *wire.Request) (*wire.Response, error), in inviteInput, r *wire.Request) {
		called := time.Now()
		_, err := ask(ctx, r)
		if err == errStop {
			err = wire.Errorf(wire.Code_CODE_UNKNOWN_OUTCOME, "%v", err)
		}
		h.invite(called, public(key), in, err)
	}
	act(maker.ask, inviteInput{kind: "issue", uses: uses}, &wire.Request{Kind: &wire.Request_CreateInvite{CreateInvite: &wire.CreateInviteRequest{
		Role: wire.Role_ROLE_WORKER, TtlMs: time.Hour.Milliseconds(), MaxUses: uint32(uses), UsesSet: true,
		LinkKey: public(key), CodeKey: public(newIdentity("code " + name).Key),
	}}})
	s.ledger.count.invites.Add(1)
	var guests sync.WaitGroup
	for i := range 4 {
		guests.Go(func() {
			guest := fmt.Sprintf("%s-%d", name, i)
			for range 2 { // who is in may ask again
				act(anyone, inviteInput{kind: "admit", device: i}, &wire.Request{Kind: &wire.Request_Admit{Admit: &wire.AdmitRequest{
					Join: joinRequest(s.id, key, newIdentity(guest), guest),
				}}})
			}
		})
	}
	if round%4 == 0 {
		id := inviteID(public(key))
		act(anyone, inviteInput{kind: "revoke"}, &wire.Request{Kind: &wire.Request_RevokeInvite{RevokeInvite: &wire.RevokeInviteRequest{InviteId: id}}})
	}
	guests.Wait()
}

// inviteID is the ID that the state gives to an invite of this key.
func inviteID(key ed25519.PublicKey) string {
	sum := wire.HashOf(append([]byte("ostrich invite 1\n"), key...))
	return hex.EncodeToString(sum[:8])
}
