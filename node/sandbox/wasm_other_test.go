//go:build !linux

package sandbox

const limitsData = false
