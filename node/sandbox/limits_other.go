//go:build !unix

package sandbox

// limitProcess does nothing where there are no resource limits.
func limitProcess() {}

// limitData does nothing where there are no resource limits.
func limitData(uint64) {}
