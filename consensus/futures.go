package consensus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Barrier returns when all that was committed before the call is applied here.
// Only the leader can tell; elsewhere it is CODE_UNAVAILABLE.
func (g *Group) Barrier(ctx context.Context) error {
	err := g.await(ctx, func() raft.Future { return g.raft.Barrier(rpcTimeout) })
	return leaderError("waiting for the log to be applied", err)
}

// Verify asks a quorum whether this node still leads. Read after a Barrier,
// then Verify: the read was current.
func (g *Group) Verify(ctx context.Context) error {
	err := g.await(ctx, func() raft.Future { return g.raft.VerifyLeader() })
	return leaderError("asking whether this node still leads", err)
}

// leaderError gives an error of raft its class.
func leaderError(what string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return wire.Errorf(wire.Code_CODE_UNAVAILABLE, "%s: %v", what, err)
}

// await waits for a future of raft, or for ctx. The future may outlive the call:
// Close waits for it.
func (g *Group) await(ctx context.Context, start func() raft.Future) error {
	g.futuresMu.Lock()
	select {
	case <-g.closing:
		g.futuresMu.Unlock()
		return errClosed
	default:
	}
	g.futures.Add(1)
	g.futuresMu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer g.futures.Done()
		done <- start().Error()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errClosed is what a closed group answers.
var errClosed = &wire.CodedError{Code: wire.Code_CODE_UNAVAILABLE, Text: "this node is stopping"}

// Close stops taking part and releases the folder. A Run that is under way
// returns. Close does not hand leadership over: ending Run's context does. It
// may be called more than once, and returns when all is stopped.
func (g *Group) Close() error {
	g.closeOnce.Do(func() {
		g.futuresMu.Lock()
		close(g.closing)
		g.futuresMu.Unlock()
		g.changes.notify()
		// Raft forgets futures that are in its queues when it shuts down, so
		// what is in flight has to end before.
		waitFor(&g.futures, settleTimeout)
		waitFor(&g.wait, settleTimeout)
		g.raft.DeregisterObserver(g.observer)
		stopped := g.raft.Shutdown()
		g.transport.Close()
		g.streams.closeConns()
		g.closeErr = errors.Join(stopped.Error(), g.stores.close())
		close(g.closed)
	})
	<-g.closed
	return g.closeErr
}

// waitFor waits for wg, but no longer than limit: a stalled disk must not keep
// the process alive.
func waitFor(wg *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
