package worker

import (
	"context"
	"testing"

	"github.com/ostrich-legs/ostrich/node/session/sessiontest"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// BenchmarkTask is the cost of a task of both sides together, without the
// sandbox: a lease of 500 tasks, their results, acknowledgements.
func BenchmarkTask(b *testing.B) {
	t := new(testing.T)
	c := newCoordinator(t)
	w, err := New(Config{
		Link: LinkConfig{
			Identity: sessiontest.NewIdentity("device"), Dial: c.dial, Trust: sessiontest.TrustAll,
			Hello: func() *wire.Hello { return sessiontest.NewHello(0) },
		},
		Slots: 2, Sandbox: newFakeSandbox(2, echo), Dir: b.TempDir(),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s := <-c.sessions
	const batch = 500
	lease := newLeaseFrame("job", 0, c.spec("p"), inputs(0, batch))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		lease.Claim.Attempt.Counter++
		s.lease(lease)
		s.collect(batch)
	}
	b.StopTimer()
	cancel()
	<-done
	c.running.Wait()
}
