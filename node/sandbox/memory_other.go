//go:build !unix

package sandbox

// region is memory of Go's own heap.
type region struct {
	buf       []byte
	committed uint64 // none: Go counts it
}

// resize returns size bytes, of which those beyond used are zero. limit is the
// most that will be asked for.
func (r *region) resize(used, size, limit uint64) []byte {
	if size <= uint64(cap(r.buf)) {
		return r.buf[:size:size]
	}
	grown := make([]byte, min(limit, max(size, 2*used)))
	copy(grown, r.buf[:used])
	r.buf = grown
	return r.buf[:size:size]
}

// release drops the memory.
func (r *region) release(uint64) { r.buf = nil }
