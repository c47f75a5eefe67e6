//go:build ostrich_format1

package state

// Format is the newest command format that this program understands.
const Format = 1
