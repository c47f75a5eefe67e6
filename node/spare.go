package node

import (
	"slices"
	"sync"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// maxSpare bounds the holds that wait to be ended, and those that ride on one
// request. Others end after 25 hours.
const (
	maxSpare  = 4096
	maxRiders = 64
)

// spareHolds are holds that this node made for requests that failed: what was put
// under them is put under others if it is sent again. They ride on the next
// request that names pages, and end with it.
type spareHolds struct {
	mu  sync.Mutex
	ids [][]byte
}

func (s *spareHolds) add(ids ...[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, ids[:min(len(ids), maxSpare-len(s.ids))]...)
}

// ride adds some of them to a request that has holds, and returns these and made:
// what has to be added again if the request fails.
func (s *spareHolds) ride(r *wire.AppendInputsRequest, made [][]byte) [][]byte {
	if len(r.GetHolds()) == 0 {
		return made
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.ids), maxRiders)
	riders := slices.Clone(s.ids[:n])
	s.ids = s.ids[n:]
	r.Holds = append(r.Holds, riders...)
	return append(riders, made...)
}
