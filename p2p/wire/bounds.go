package wire

import "time"

// Bounds of section 11 of the design. Whatever exceeds one is refused where it
// arrives.
const (
	// MaxName bounds the name of a device, in characters.
	MaxName = 100
	// MaxErrorText bounds the error text kept of a task, in characters.
	MaxErrorText = 500
	// MaxStderr bounds the end of stderr kept of a task, in bytes.
	MaxStderr = 4 << 10
	// MaxFrame bounds a frame of a session, in bytes.
	MaxFrame = 1 << 20
	// MaxGossip bounds a gossip message, in bytes.
	MaxGossip = 64 << 10
	// MaxJoinMessage bounds each message of the join protocol, in bytes.
	MaxJoinMessage = 4 << 10
	// MaxInline bounds the payload that a segment carries in a command.
	MaxInline = 4 << 10
	// PageSize bounds a page, and is the length of all but the last page of a
	// blob.
	PageSize = 1 << 20
	// MaxEntry is the size at which a log entry takes no further operation.
	MaxEntry = 256 << 10
	// MaxBlob bounds an input and an output.
	MaxBlob = 1 << 30
	// MaxProgram bounds a program.
	MaxProgram = 256 << 20
	// MaxTasks bounds the tasks of a job.
	MaxTasks = 10_000_000
	// MaxOpenJobs bounds the jobs that have not ended.
	MaxOpenJobs = 1000
	// MaxPackItems bounds the inputs or results that share a page.
	MaxPackItems = 1 << 16
	// MaxGeneration bounds the swarm's generation, so that there is always one
	// more: a swarm is recovered by hand.
	MaxGeneration = 1 << 32
	// MaxDevices bounds the registry.
	MaxDevices = 10_000
	// MaxChunk bounds the bytes of a page in one ReadPage or WritePage, so that
	// heartbeats pass between.
	MaxChunk = 256 << 10
	// MaxLabels bounds the labels of a device, and MaxLabel the characters of a
	// key or value.
	MaxLabels = 32
	MaxLabel  = 64
	// MaxArgs bounds the bytes of a job's arguments and environment in sum.
	MaxArgs = 64 << 10
)

// Bounds of what a job may ask for. A 32-bit WebAssembly memory holds no more
// than MaxMemoryMiB.
const (
	MaxMemoryMiB = 4096
	MaxRetries   = 1000
	MaxTimeout   = 366 * 24 * time.Hour
	MaxKeep      = 3660 * 24 * time.Hour
)

// Defaults of a task.
const (
	DefaultMemoryMiB = 256
	DefaultTimeout   = 10 * time.Minute
	DefaultMaxOutput = 16 << 20
	DefaultRetries   = 2
	DefaultKeep      = 7 * 24 * time.Hour
)

// SessionVersion is the version of the session protocol that this program
// speaks; JoinVersion that of the join protocol.
const (
	SessionVersion = 1
	JoinVersion    = 1
)

// Outcomes of a record in CompleteTasks.
const (
	// OutcomeOK is a result.
	OutcomeOK = 0
	// OutcomeFailed is a failed attempt, which counts against the retries.
	OutcomeFailed = 1
	// OutcomeFatal fails the task whatever its retries: what is wrong will be
	// wrong again.
	OutcomeFatal = 2
)
