package node

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/blob"
)

const (
	// diskLow is the free space below which a node hands leadership over, and
	// diskEnough that above which it may lead again: section 5 of the design.
	diskLow    = 256 << 20
	diskEnough = 512 << 20
	// diskEvery is how often it looks.
	diskEvery = 2 * time.Second
)

// diskWatch knows whether the disk is almost full.
type diskWatch struct{ low atomic.Bool }

// see takes the free space of the moment, and reports whether it changed which
// side the disk is on.
func (d *diskWatch) see(free uint64) (changed bool) {
	low := d.low.Load()
	switch {
	case !low && free < diskLow, low && free > diskEnough:
		d.low.Store(!low)
		return true
	}
	return false
}

// watchDisk follows the free space of the data folder until ctx ends.
func (n *node) watchDisk(ctx context.Context) error {
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		if free, err := blob.FreeSpace(n.folder.dir); err == nil && n.disk.see(free) {
			if n.disk.low.Load() {
				n.announce(lineWarn, false, fmt.Sprintf("%d MiB are free on the disk of %s: this device does not coordinate while another can", free>>20, n.folder.dir))
			} else {
				n.announce(lineInfo, false, fmt.Sprintf("%d MiB are free again on the disk of %s: this device may coordinate", free>>20, n.folder.dir))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
