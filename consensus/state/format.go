//go:build !ostrich_format1

package state

// Format is the newest command format that this program understands. Built
// with the tag ostrich_format1 the program is one of yesterday, for tests of
// swarms of mixed versions.
const Format = 2
