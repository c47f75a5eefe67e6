package sandbox

import (
	"log/slog"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// InlineOutput is the size up to which an output is handed over in memory;
// above it the output goes to Task.OutputPath.
const InlineOutput = 64 << 10

// MaxInlineInput bounds Task.Stdin in bytes; a larger input comes as a file,
// by Task.StdinPath.
const MaxInlineInput = 4 << 20

// CompileTimeout bounds the compilation of a program, which is not charged to
// any task. There is as much again for each compileUnit bytes of the program: on
// a busy machine one of 75 MB takes more than a minute.
const (
	CompileTimeout = 60 * time.Second
	compileUnit    = 16 << 20
)

// Options say how a Pool works.
type Options struct {
	// Slots is the number of tasks run at one time; 0 runs none, until
	// SetSlots.
	Slots int
	// CacheDir holds compiled programs across restarts; "" compiles anew in
	// each child.
	CacheDir string
	// Executable is the binary that children run, which must call ChildMain
	// when IsChild reports true. Default: os.Executable.
	Executable string
	// Idle is the time without work after which a warm child ends. Default:
	// 60 s.
	Idle time.Duration
	// Log takes what an operator would act on: nil means nowhere.
	Log *slog.Logger

	// These are set by tests only.
	compileTimeout time.Duration
	probeEvery     time.Duration
	orphanable     bool
}

// Program is a module on this machine's disk.
type Program struct {
	// Hash is the SHA-256 of the file; a file that does not match is refused.
	Hash wire.Hash
	// Path is the module's file, readable until Run returns.
	Path string
}

// Task is one run of a program. The zero value of a bound means the default of
// the design's section 11.
type Task struct {
	// Args begin with argv[0]; Env holds K=V. Neither may hold a zero byte.
	Args, Env []string
	// Stdin is the input, at most MaxInlineInput, unless StdinPath names a file.
	Stdin     []byte
	StdinPath string
	// Seed makes the task's randomness; see the package comment and Seed.
	Seed [32]byte
	// Timeout is measured from the start of the task, without compilation.
	Timeout time.Duration
	// MemoryMiB bounds the program's linear memory; at most 4096 count.
	MemoryMiB uint32
	// MaxOutput bounds stdout in bytes.
	MaxOutput uint64
	// OutputPath is where an output above InlineOutput is written; the file is
	// created, or replaced. Without one such an output fails the task.
	OutputPath string
}

// Result is the outcome of a Task.
type Result struct {
	// ExitCode is the program's own status; 0 unless it ended by itself.
	ExitCode uint32
	// Failure is FAILURE_KIND_UNSPECIFIED when the program ended with status 0.
	Failure wire.FailureKind
	// Error says in words what failed, at most wire.MaxErrorText characters.
	Error string
	// Stdout is the output, unless StdoutPath names the file that holds it;
	// StdoutSize is its size either way. A program that fails by exit or trap
	// leaves what it wrote before; one that passed a bound leaves nothing.
	Stdout     []byte
	StdoutPath string
	StdoutSize uint64
	// Stderr is the end of what the program wrote there, at most
	// wire.MaxStderr bytes.
	Stderr []byte
	// Duration is the time that the task itself took.
	Duration time.Duration
}

// Status is what a Pool is doing.
type Status struct {
	// Slots is the number of tasks that may run at one time.
	Slots int
	// Children counts living child processes, Running those that work.
	Children, Running int
	// Unwell says why the pool can run nothing now; "" if it can.
	Unwell string
}
