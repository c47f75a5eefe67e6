package sandbox

import "github.com/tetratelabs/wazero/experimental"

// wasmPage is the unit in which a program's memory grows.
const wasmPage = 64 << 10

// mib is a mebibyte.
const mib = 1 << 20

// arena lends one linear memory to one program at a time, bounds it, and notes
// when the program wanted more. It is used by one goroutine.
type arena struct {
	region region
	limit  uint64
	// used is the length that the program has now, most what it wanted at the
	// most.
	used, most uint64
	// denied is the memory that the limit allows and the system refused, in
	// bytes; 0 if it refused none.
	denied uint64
}

// reset makes the arena ready for a program that may have limit bytes.
func (a *arena) reset(limit uint64) { a.limit, a.most, a.denied = limit, 0, 0 }

// committed is what counts against the limit of the process's data, in bytes.
func (a *arena) committed() uint64 { return a.region.committed }

// refused reports whether the program wanted more than its limit.
func (a *arena) refused() bool { return a.most > a.limit }

// Allocate implements experimental.MemoryAllocator.
func (a *arena) Allocate(_, _ uint64) experimental.LinearMemory {
	return a
}

// Reallocate implements experimental.LinearMemory.
func (a *arena) Reallocate(size uint64) []byte {
	a.most = max(a.most, size)
	if size > a.limit {
		return nil
	}
	buf := a.region.resize(a.used, size, a.limit)
	if buf == nil {
		// The system refused what the limit allows: to the program it is the
		// same. Whether that is its own doing shows when it has ended.
		a.denied = max(1, size-min(size, a.region.committed))
		a.most = max(a.most, a.limit+1)
		return nil
	}
	a.used = size
	return buf
}

// Free implements experimental.LinearMemory.
func (a *arena) Free() {
	a.region.release(a.used)
	a.used = 0
}
