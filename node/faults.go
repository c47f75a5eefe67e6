//go:build ostrich_faults

package node

import "github.com/ostrich-legs/ostrich/consensus"

// injectFaults lets the file "faults" of the data folder harm the log, in a
// program that is built for tests of disks that fail.
func injectFaults(o *consensus.Options, f *folder) { consensus.InjectFaults(o, f.path("faults")) }
