package consensus

import (
	"context"
	"errors"
	"fmt"
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
	done := make(chan error, 1)
	if !g.spawn(func() { done <- start().Error() }) {
		return errClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spawn runs f beside its caller; Close waits for it. False: the group closes,
// and f does not run.
func (g *Group) spawn(f func()) bool {
	g.futuresMu.Lock()
	defer g.futuresMu.Unlock()
	select {
	case <-g.closing:
		return false
	default:
	}
	g.futures.Go(f)
	return true
}

// errClosed is what a closed group answers.
var errClosed = &wire.CodedError{Code: wire.Code_CODE_UNAVAILABLE, Text: "this node is stopping"}

const (
	// closeTimeout bounds how long Close waits for a disk that does not answer,
	// and closeLimit for one that does.
	closeTimeout = 2 * time.Second
	closeLimit   = 30 * time.Second
	closeTick    = 20 * time.Millisecond
)

// Close stops taking part and releases the folder. A Run that is under way
// returns. Close does not hand leadership over: ending Run's context does. It
// may be called more than once, and returns when all is stopped; or after 2 s,
// with ErrStalled, when the disk does not answer: the folder is in use then until
// it does.
func (g *Group) Close() error {
	g.closeOnce.Do(func() {
		g.futuresMu.Lock()
		close(g.closing)
		g.futuresMu.Unlock()
		g.changes.notify()
		if !errors.Is(g.fault(), ErrStalled) {
			// Raft forgets futures that are in its queues when it shuts down, so
			// what is in flight has to end before.
			waitFor(&g.futures, settleTimeout)
			waitFor(&g.wait, settleTimeout)
		}
		g.raft.DeregisterObserver(g.observer)
		stopped := g.raft.Shutdown()
		g.transport.Close()
		g.streams.closeConns()
		g.closeErr = g.release(stopped)
		close(g.closed)
	})
	<-g.closed
	return g.closeErr
}

// release waits for raft and the stores to end, but not for ever: a stalled disk
// must not keep the process alive.
func (g *Group) release(stopped raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- errors.Join(stopped.Error(), g.stores.close()) }()
	start := time.Now()
	tick := time.NewTicker(closeTick)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
		waited := time.Since(start)
		if waited >= closeLimit || waited >= closeTimeout && g.disk.stuck() >= closeTimeout {
			return fmt.Errorf("closing %s: %w", g.dir, ErrStalled)
		}
	}
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
