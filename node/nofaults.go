//go:build !ostrich_faults

package node

import "github.com/ostrich-legs/ostrich/consensus"

// injectFaults does nothing: see the build tag ostrich_faults.
func injectFaults(*consensus.Options, *folder) {}
