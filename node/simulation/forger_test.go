package simulation

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/ostrich-legs/ostrich/consensus/state"
	"github.com/ostrich-legs/ostrich/node/session"
	"github.com/ostrich-legs/ostrich/node/worker"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// forgeEvery is how often the forger comes with other leases.
const forgeEvery = 7 * time.Second

// forger is a device of the swarm that is hostile: it claims leases that it was
// never given, and delivers results of them that nobody computed. With the
// swarm's key it does what any device could if no token were asked for.
type forger struct {
	machine *machine
	claims  []*wire.LeaseClaim // of the session that is being opened
	worker  *worker.Link
	parts   parts
}

func startForger(m *machine) (process, error) {
	f, dialer := &forger{machine: m}, newDialer(m)
	config := dialer.link(dialer.dial)
	hello := config.Hello
	config.Hello = func() *wire.Hello {
		h := hello()
		f.claims = f.forge()
		h.Leases = f.claims
		return h
	}
	f.worker = worker.NewLink(config, worker.Handler{Opened: f.deliver})
	f.parts.start(f.worker.Run)
	f.parts.start(func(ctx context.Context) error {
		for sleep(ctx, forgeEvery) == nil {
			f.worker.Redial()
		}
		return ctx.Err()
	})
	return f, nil
}

func (f *forger) link() *worker.Link { return f.worker }
func (f *forger) kill()              { f.parts.endAll() }
func (f *forger) quit()              { f.parts.endInTurn() }

// forge makes up leases of tasks that are open, as some member knows them.
func (f *forger) forge() (claims []*wire.LeaseClaim) {
	s := f.machine.swarm
	p := pickAny(s.members).member()
	if p == nil {
		return nil
	}
	p.group.Read(func(st *state.State) {
		for _, j := range st.OpenJobs() {
			claim := &wire.LeaseClaim{JobId: string(j.ID()), Attempt: &wire.Attempt{Term: 1, Counter: 1_000_000 + rand.Uint64N(1_000_000)}}
			for i := uint32(0); i < j.Total() && len(claim.Indexes) < 8; i++ {
				if !j.TaskDone(i) {
					claim.Indexes = append(claim.Indexes, i)
				}
			}
			if len(claim.Indexes) > 0 && len(claims) < 16 {
				claim.Token = wire.LeaseToken(f.key(st, j), f.machine.id.ID, claim)
				claims = append(claims, claim)
			}
		}
	})
	return claims
}

// key is a guess, or, where the token is to prove nothing, the one that the
// coordinator makes tokens with.
func (f *forger) key(st *state.State, j *state.Job) []byte {
	if !f.machine.swarm.options.tokensProveNothing {
		return []byte("a guess")
	}
	mac := hmac.New(sha256.New, st.LeaseKey())
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(j.CreatedAtMS())))
	return mac.Sum(nil)
}

// deliver sends results for what was claimed.
func (f *forger) deliver(conn *session.Conn, _ *wire.Welcome) {
	for _, claim := range f.claims {
		results := &wire.Results{JobId: claim.GetJobId(), Attempt: claim.GetAttempt()}
		for _, i := range claim.GetIndexes() {
			results.Results = append(results.Results, &wire.TaskResult{
				Index: i, Status: wire.TaskStatus_TASK_STATUS_OK, Output: []byte("forged"), DurationUs: 1,
			})
		}
		f.machine.swarm.ledger.count.forged.Add(int64(len(claim.GetIndexes())))
		conn.Post(&wire.Frame{Kind: &wire.Frame_Results{Results: results}})
	}
}

func pickAny(list []*machine) *machine { return list[rand.IntN(len(list))] }
