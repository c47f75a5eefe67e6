package main

import (
	"context"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// crowdSeen is what was seen of a crowd from the node's side.
type crowdSeen struct {
	most    int64         // bytes of the node's anonymous memory
	absent  int           // browsers that were not online at one time
	silence time.Duration // the longest of any browser
	err     error
}

// crowdWatcher looks at a crowd until it is ended.
type crowdWatcher struct {
	stop context.CancelFunc
	seen chan crowdSeen
}

// watchCrowd begins to look at the node's memory ten times a second, and at each
// browser once.
func watchCrowd(ctx context.Context, n *node) *crowdWatcher {
	ctx, stop := context.WithCancel(ctx)
	w := &crowdWatcher{stop: stop, seen: make(chan crowdSeen, 1)}
	go func() {
		var seen crowdSeen
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				w.seen <- seen
				return
			case <-tick.C:
			}
			seen.most = max(seen.most, bridgeMemory(n.cmd.Process.Pid))
			if i%10 == 0 {
				seen.look(ctx, n)
			}
		}
	}()
	return w
}

// end ends the watch.
func (w *crowdWatcher) end() crowdSeen {
	w.stop()
	return <-w.seen
}

// look asks the node for its browsers.
func (s *crowdSeen) look(ctx context.Context, n *node) {
	browsers, err := n.browsers(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.err = err
		}
		return
	}
	online := 0
	for _, d := range browsers {
		if st := d.GetStatus(); st == wire.DeviceStatus_DEVICE_STATUS_ONLINE || st == wire.DeviceStatus_DEVICE_STATUS_BUSY {
			online++
		}
		s.silence = max(s.silence, time.Since(time.UnixMilli(d.GetLastHeartbeatMs())))
	}
	s.absent = max(s.absent, crowdSize-online)
}
