package sandbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	// maxPrograms and maxProgramBytes bound the compiled programs that a child
	// keeps.
	maxPrograms     = 8
	maxProgramBytes = 96 << 20

	// garbage is how much may gather before it is collected; with more than
	// muchGarbage the memory goes back to the system, too, which Go does not do
	// by itself while its collector is off.
	garbage     = 16 << 20
	muchGarbage = 64 << 20
)

// features are what programs may use: what every browser has, too.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// program is a compiled module.
type program struct {
	hash   wire.Hash
	size   int
	rt     wazero.Runtime
	module wazero.CompiledModule
	// minimum is the memory that it begins with, in bytes.
	minimum uint64
}

// engine runs programs, one at a time, on one goroutine.
//
// Go's garbage collector stops all goroutines at times, which a program that
// loops would hold up without end, and with it every other goroutine of the
// process, the one that watches for the death of the node among them. So the
// collector is off, and the engine runs it where no program is in the way:
// between tasks, within the calls that programs make, and while it compiles.
type engine struct {
	ctx      context.Context
	cacheDir string
	cached   wazero.Runtime // keeps what it compiles in cacheDir; nil without one
	plain    wazero.Runtime
	config   wazero.ModuleConfig
	host     *host
	arena    arena
	programs []*program // most recently used last
	// data is what limitData was last told; use is what was in use besides the
	// program's memory when that was last measured, and base what it was once the
	// last program was loaded.
	data, use, base uint64
	floor           uint64 // bytes on the heap after the last collection
	sample          []metrics.Sample
}

// newEngine returns an engine that keeps compiled programs in cacheDir too,
// unless it is "".
func newEngine(cacheDir string) (*engine, error) {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(math.MaxInt64)
	e := &engine{
		cacheDir: cacheDir,
		config:   wazero.NewModuleConfig().WithName("").WithStartFunctions(),
		host:     &host{stdout: &sink{}, stderr: &tail{}},
		sample:   []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}},
	}
	e.host.breath = e.breathe
	e.ctx = experimental.WithMemoryAllocator(context.Background(), &e.arena)
	config := wazero.NewRuntimeConfig().WithCoreFeatures(features).WithDebugInfoEnabled(false)
	var err error
	if e.plain, err = e.newRuntime(config); err != nil || cacheDir == "" {
		return e, err
	}
	// Without its folder the engine works all the same, only slower.
	if cache, err := wazero.NewCompilationCacheWithDir(cacheDir); err == nil {
		e.cached, err = e.newRuntime(config.WithCompilationCache(cache))
		return e, err
	}
	return e, nil
}

// newRuntime returns a runtime whose programs can call e.host.
func (e *engine) newRuntime(config wazero.RuntimeConfig) (wazero.Runtime, error) {
	rt := wazero.NewRuntimeWithConfig(e.ctx, config)
	if _, err := e.host.hostModule(rt).Instantiate(e.ctx); err != nil {
		return nil, fmt.Errorf("WASI cannot be set up: %w", err)
	}
	return rt, nil
}

// breathe collects garbage if there is enough of it.
func (e *engine) breathe() {
	switch heap := e.heap(); {
	case heap > e.floor+muchGarbage:
		debug.FreeOSMemory()
		e.measure()
	case heap > e.floor+garbage:
		runtime.GC()
	default:
		return
	}
	e.floor = e.heap()
}

func (e *engine) heap() uint64 {
	metrics.Read(e.sample)
	return e.sample[0].Value.Uint64()
}

// kept returns the compiled program with that hash, nil if it is not kept.
func (e *engine) kept(hash wire.Hash) *program {
	for i, p := range e.programs {
		if p.hash == hash {
			copy(e.programs[i:], e.programs[i+1:])
			e.programs[len(e.programs)-1] = p
			return p
		}
	}
	return nil
}

// readModule reads a module's file.
func readModule(path string) ([]byte, wire.Hash, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, wire.Hash{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, wire.Hash{}, err
	case !info.Mode().IsRegular():
		return nil, wire.Hash{}, errors.New("it is not a regular file")
	case info.Size() > wire.MaxProgram:
		return nil, wire.Hash{}, fmt.Errorf("it has %d bytes: a program has at most %s", info.Size(), bytesText(wire.MaxProgram))
	}
	module := make([]byte, info.Size())
	if _, err := io.ReadFull(file, module); err != nil {
		return nil, wire.Hash{}, err
	}
	return module, sha256.Sum256(module), nil
}

// compile compiles a module, keeps it and returns it; worn says that another
// child should run it. The error says what is wrong with the module, unless it
// is unsound.
func (e *engine) compile(hash wire.Hash, module []byte) (p *program, worn bool, err error) {
	if err := inspect(module); err != nil {
		return nil, false, err
	}
	start := time.Now()
	e.measure()
	if err := e.limit(dataAllowance + compileFactor*uint64(len(module))); err != nil {
		return nil, false, err
	}
	debug.SetGCPercent(50)
	p, err = e.build(hash, module)
	debug.SetGCPercent(-1)
	debug.FreeOSMemory()
	e.floor = e.heap()
	worn = e.loaded(start)
	return p, worn, err
}

// build is the part of compile that may break.
func (e *engine) build(hash wire.Hash, module []byte) (p *program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, unsoundf("it broke the compiler: %v", r)
		}
	}()
	p = &program{hash: hash, size: len(module)}
	if err := e.translate(p, module); err != nil {
		if errors.Is(err, syscall.ENOMEM) || noMemory(err.Error()) {
			return nil, unsoundf("the compiler had no memory: %v", err)
		}
		return nil, fmt.Errorf("it is not a valid WebAssembly module: %s", cut(firstLine(err.Error()), 300))
	}
	if err := examine(p.module); err != nil {
		_ = p.module.Close(e.ctx)
		return nil, err
	}
	p.minimum = uint64(p.module.ExportedMemories()[memoryName].Min()) * wasmPage
	e.keep(p)
	return p, nil
}

// translate has wazero compile a module, or find it in its folder.
func (e *engine) translate(p *program, module []byte) (err error) {
	ctx := experimental.WithCompilationWorkers(e.ctx, runtime.GOMAXPROCS(0))
	if p.rt = e.cached; p.rt != nil {
		if p.module, err = p.rt.CompileModule(ctx, module); err == nil {
			return nil
		}
		if strings.HasPrefix(err.Error(), "compilationcache: ") {
			// A file there is damaged, and nothing tells which.
			pruneCache(e.cacheDir, -1)
		}
	}
	// Whatever is wrong with the folder, a full disk perhaps, is not the
	// program's fault.
	p.rt = e.plain
	p.module, err = p.rt.CompileModule(ctx, module)
	return err
}

// keep adds p to the programs, and lets go of the oldest ones.
func (e *engine) keep(p *program) {
	e.programs = append(e.programs, p)
	total := 0
	for i := len(e.programs) - 1; i >= 0; i-- {
		total += e.programs[i].size
		if i < len(e.programs)-1 && (total > maxProgramBytes || len(e.programs)-i > maxPrograms) {
			for _, old := range e.programs[:i+1] {
				_ = old.module.Close(e.ctx)
			}
			e.programs = append([]*program(nil), e.programs[i+1:]...)
			return
		}
	}
}

// run runs t. inFile says that the output lies in the file that t names;
// otherwise the result shares the engine's memory until the next run. After an
// error, errWorn or unsound, the task has to run in another child.
func (e *engine) run(p *program, t *task) (res Result, inFile bool, err error) {
	start := time.Now()
	e.breathe()
	if e.use > e.base+growth {
		return res, false, errWorn
	}
	limit := t.memoryMiB * mib
	e.arena.reset(limit)
	if err := e.limit(dataAllowance + limit); err != nil {
		return res, false, err
	}
	h := e.host
	h.stdout.reset(t.maxOutput, t.outputPath)
	h.stderr.buf = h.stderr.buf[:0]
	h.args, h.env, h.closed = t.args, t.env, [3]bool{}
	h.clock, h.random = clock{}, stream{seed: t.seed}
	end := e.call(p, t)
	if err := e.fault(end); err != nil {
		h.stdout.discard()
		return res, false, err
	}
	e.arena.Free()
	res.Failure, res.ExitCode, res.Error = e.verdict(end, t)
	inFile = e.collect(&res)
	res.Stderr = h.stderr.bytes()
	res.Duration = time.Since(start)
	return res, inFile, nil
}

// fault says whether a task ended, with end, because something is wrong with
// this child; nil if not.
func (e *engine) fault(end error) error {
	var exit *sys.ExitError
	var fault runtime.Error
	var broken *unsound
	switch {
	case end == nil, errors.As(end, &exit) && exit.ExitCode() == 0:
		return nil
	case e.arena.denied > 0:
		return e.denied()
	case errors.As(end, &broken):
		return broken
	case errors.As(end, &fault):
		return unsoundf("it broke the sandbox: %s", firstLine(end.Error()))
	}
	return nil
}

// call runs the program to its end.
func (e *engine) call(p *program, t *task) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = unsoundf("it broke the sandbox: %v", r)
		}
	}()
	if p.minimum > e.arena.limit {
		return failf(wire.FailureKind_FAILURE_KIND_MEMORY, "it needs %s of memory to begin with, more than its bound of %d MiB",
			bytesText(p.minimum), t.memoryMiB)
	}
	stdin, err := openInput(t)
	if err != nil {
		return err
	}
	defer stdin.close()
	e.host.stdin = stdin
	module, err := p.rt.InstantiateModule(e.ctx, p.module, e.config)
	if err != nil {
		return err
	}
	defer module.Close(e.ctx)
	_, err = module.ExportedFunction(startName).Call(e.ctx)
	return err
}

// verdict says how the end of a program counts.
func (e *engine) verdict(err error, t *task) (kind wire.FailureKind, exit uint32, text string) {
	var end *sys.ExitError
	var bound *failure
	switch {
	case err == nil:
		return wire.FailureKind_FAILURE_KIND_UNSPECIFIED, 0, ""
	case errors.As(err, &bound):
		return bound.kind, 0, bound.text
	case errors.As(err, &end) && end.ExitCode() == 0:
		return wire.FailureKind_FAILURE_KIND_UNSPECIFIED, 0, ""
	case e.arena.refused():
		return wire.FailureKind_FAILURE_KIND_MEMORY, 0, fmt.Sprintf("it needed more memory than its bound of %d MiB", t.memoryMiB)
	case errors.As(err, &end):
		return wire.FailureKind_FAILURE_KIND_EXIT, end.ExitCode(), fmt.Sprintf("exit status %d", end.ExitCode())
	}
	return wire.FailureKind_FAILURE_KIND_TRAP, 0, trapText(err.Error())
}

// trapText makes one line of what wazero says of a trap: what happened, and in
// which function.
func trapText(text string) string {
	what := strings.TrimPrefix(firstLine(text), "wasm error: ")
	if _, trace, ok := strings.Cut(text, "wasm stack trace:\n"); ok {
		if where := strings.TrimSpace(firstLine(trace)); where != "" {
			what += " in " + strings.TrimPrefix(where, ".")
		}
	}
	return cut("trap: "+what, wire.MaxErrorText)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// collect takes the output of a task that ended by itself into res, and drops
// that of one that did not.
func (e *engine) collect(res *Result) (inFile bool) {
	out := e.host.stdout
	switch res.Failure {
	case wire.FailureKind_FAILURE_KIND_UNSPECIFIED, wire.FailureKind_FAILURE_KIND_EXIT, wire.FailureKind_FAILURE_KIND_TRAP:
	default:
		out.discard()
		return false
	}
	inFile, err := out.end()
	if err != nil {
		out.discard()
		*res = Result{Failure: wire.FailureKind_FAILURE_KIND_INTERNAL, Error: cut(err.Error(), wire.MaxErrorText)}
		return false
	}
	res.StdoutSize = out.size()
	if !inFile {
		res.Stdout = out.buf
	}
	return inFile
}
