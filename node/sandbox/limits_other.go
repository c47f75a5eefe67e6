//go:build !unix

package sandbox

import "math"

// limitProcess does nothing where there are no resource limits.
func limitProcess() {}

// limitData does nothing where there are no resource limits.
func limitData(uint64) uint64 { return math.MaxUint64 }

// dataLimit says that there is none.
func dataLimit() uint64 { return math.MaxUint64 }
