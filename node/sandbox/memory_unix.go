//go:build unix

package sandbox

import "golang.org/x/sys/unix"

const (
	// cheapClear is the size up to which zeroing memory costs less than giving
	// it back to the system and faulting it in again.
	cheapClear = 512 << 10
	// commitStep is the unit in which reserved memory is made usable.
	commitStep = 1 << 20
)

// region is address space that is reserved once and made usable as it is
// needed, so that a memory never moves, costs no garbage, and counts against
// RLIMIT_DATA only as far as it is used.
type region struct {
	reserved  []byte
	committed uint64
}

// resize returns size bytes, of which those beyond used are zero; nil if the
// system has none. limit is the most that will be asked for.
func (r *region) resize(_, size, limit uint64) []byte {
	if uint64(len(r.reserved)) < limit {
		r.drop()
		reserved, err := unix.Mmap(-1, 0, int(limit), unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil
		}
		r.reserved = reserved
	}
	if size > r.committed {
		end := min((size+commitStep-1)/commitStep*commitStep, uint64(len(r.reserved)))
		if unix.Mprotect(r.reserved[r.committed:end], unix.PROT_READ|unix.PROT_WRITE) != nil {
			return nil
		}
		r.committed = end
	}
	return r.reserved[:size:size]
}

// release zeroes the memory for the next program, or gives it back.
func (r *region) release(used uint64) {
	if used <= min(cheapClear, uint64(len(r.reserved))) {
		clear(r.reserved[:used])
		return
	}
	r.drop()
}

func (r *region) drop() {
	if r.reserved != nil {
		_ = unix.Munmap(r.reserved)
	}
	r.reserved, r.committed = nil, 0
}
