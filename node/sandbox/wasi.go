package sandbox

import (
	"context"
	"encoding/binary"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// wasiModule is the only module that a program may import from.
const wasiModule = "wasi_snapshot_preview1"

// errno is a WASI error number, as functions return it.
type errno uint32

// The numbers are those of WASI preview 1.
const (
	errnoOK      errno = 0
	errnoBadf    errno = 8
	errnoFault   errno = 21
	errnoInval   errno = 28
	errnoNosys   errno = 52
	errnoNotdir  errno = 54
	errnoNotsock errno = 57
	errnoNotsup  errno = 58
	errnoSpipe   errno = 70
)

// host is what a running program can reach: it implements WASI preview 1 for
// one task at a time. Its functions run on the goroutine that runs the program.
type host struct {
	args   [][]byte
	env    [][]byte
	stdin  input
	stdout *sink
	stderr *tail
	clock  clock
	random stream
	closed [3]bool
	// breath is called now and then: see engine.breathe.
	breath func()
	calls  uint32
}

// call is one call of a WASI function: its arguments and the memory of the
// caller.
type call struct {
	mem  api.Memory
	args []uint64
}

func (c call) u32(i int) uint32 { return uint32(c.args[i]) }

// bytes returns size bytes of the caller's memory at offset, nil if they are
// not all there.
func (c call) bytes(offset, size uint32) []byte {
	if c.mem == nil {
		return nil
	}
	b, ok := c.mem.Read(offset, size)
	if !ok {
		return nil
	}
	return b
}

// putU32 writes v at offset; it reports whether the place is there.
func (c call) putU32(offset, v uint32) bool {
	return c.mem != nil && c.mem.WriteUint32Le(offset, v)
}

// putU64 writes v at offset; it reports whether the place is there.
func (c call) putU64(offset uint32, v uint64) bool {
	return c.mem != nil && c.mem.WriteUint64Le(offset, v)
}

// function is one function of WASI preview 1. In params, i is a 32-bit and I a
// 64-bit integer.
type function struct {
	name   string
	params string
	run    func(*host, call) errno
}

// functions lists all of WASI preview 1 but proc_exit, which returns nothing.
func functions() []function {
	return []function{
		{"args_get", "ii", (*host).argsGet},
		{"args_sizes_get", "ii", (*host).argsSizesGet},
		{"environ_get", "ii", (*host).environGet},
		{"environ_sizes_get", "ii", (*host).environSizesGet},
		{"clock_res_get", "ii", (*host).clockResGet},
		{"clock_time_get", "iIi", (*host).clockTimeGet},
		{"fd_advise", "iIIi", onStream(errnoSpipe)},
		{"fd_allocate", "iII", onStream(errnoSpipe)},
		{"fd_close", "i", (*host).fdClose},
		{"fd_datasync", "i", onStream(errnoOK)},
		{"fd_fdstat_get", "ii", (*host).fdFdstatGet},
		{"fd_fdstat_set_flags", "ii", onStream(errnoOK)},
		{"fd_fdstat_set_rights", "iII", onStream(errnoNosys)},
		{"fd_filestat_get", "ii", (*host).fdFilestatGet},
		{"fd_filestat_set_size", "iI", onStream(errnoInval)},
		{"fd_filestat_set_times", "iIIi", onStream(errnoInval)},
		{"fd_pread", "iiiIi", onStream(errnoSpipe)},
		{"fd_prestat_get", "ii", always(errnoBadf)},
		{"fd_prestat_dir_name", "iii", always(errnoBadf)},
		{"fd_pwrite", "iiiIi", onStream(errnoSpipe)},
		{"fd_read", "iiii", (*host).fdRead},
		{"fd_readdir", "iiiIi", onStream(errnoNotdir)},
		{"fd_renumber", "ii", onStream(errnoNotsup)},
		{"fd_seek", "iIii", onStream(errnoSpipe)},
		{"fd_sync", "i", onStream(errnoOK)},
		{"fd_tell", "ii", onStream(errnoSpipe)},
		{"fd_write", "iiii", (*host).fdWrite},
		{"path_create_directory", "iii", onStream(errnoNotdir)},
		{"path_filestat_get", "iiiii", onStream(errnoNotdir)},
		{"path_filestat_set_times", "iiiiIIi", onStream(errnoNotdir)},
		{"path_link", "iiiiiii", onStream(errnoNotdir)},
		{"path_open", "iiiiiIIii", onStream(errnoNotdir)},
		{"path_readlink", "iiiiii", onStream(errnoNotdir)},
		{"path_remove_directory", "iii", onStream(errnoNotdir)},
		{"path_rename", "iiiiii", onStream(errnoNotdir)},
		{"path_symlink", "iiiii", always(errnoBadf)},
		{"path_unlink_file", "iii", onStream(errnoNotdir)},
		{"poll_oneoff", "iiii", (*host).pollOneoff},
		{"proc_raise", "i", always(errnoNosys)},
		{"random_get", "ii", (*host).randomGet},
		{"sched_yield", "", always(errnoOK)},
		{"sock_accept", "iii", onStream(errnoNotsock)},
		{"sock_recv", "iiiiii", onStream(errnoNotsock)},
		{"sock_send", "iiiii", onStream(errnoNotsock)},
		{"sock_shutdown", "ii", onStream(errnoNotsock)},
	}
}

// always returns a function that has one answer.
func always(answer errno) func(*host, call) errno {
	return func(*host, call) errno { return answer }
}

// onStream returns a function that has one answer for an open descriptor in its
// first argument, and errnoBadf for others.
func onStream(answer errno) func(*host, call) errno {
	return func(h *host, c call) errno {
		if !h.open(c.u32(0)) {
			return errnoBadf
		}
		return answer
	}
}

// valueTypes decodes the params of a function.
func valueTypes(params string) []api.ValueType {
	types := make([]api.ValueType, len(params))
	for i, p := range params {
		types[i] = api.ValueTypeI32
		if p == 'I' {
			types[i] = api.ValueTypeI64
		}
	}
	return types
}

// hostModule describes h's functions for rt.
func (h *host) hostModule(rt wazero.Runtime) wazero.HostModuleBuilder {
	builder := rt.NewHostModuleBuilder(wasiModule)
	for _, f := range functions() {
		run := f.run
		builder.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(
			func(_ context.Context, mod api.Module, stack []uint64) {
				h.breathe()
				result := run(h, call{mem: mod.Memory(), args: stack})
				stack[0] = uint64(result)
			}), valueTypes(f.params), []api.ValueType{api.ValueTypeI32}).Export(f.name)
	}
	builder.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(
		func(_ context.Context, _ api.Module, stack []uint64) {
			panic(sys.NewExitError(uint32(stack[0])))
		}), valueTypes("i"), nil).Export("proc_exit")
	return builder
}

// breathe gives the garbage collector its chance every some thousand calls.
func (h *host) breathe() {
	if h.calls++; h.calls%4096 == 0 {
		h.breath()
	}
}

func (h *host) argsGet(c call) errno         { return putStrings(c, h.args) }
func (h *host) argsSizesGet(c call) errno    { return putSizes(c, h.args) }
func (h *host) environGet(c call) errno      { return putStrings(c, h.env) }
func (h *host) environSizesGet(c call) errno { return putSizes(c, h.env) }

// putSizes writes the number of strings and the bytes that they take.
func putSizes(c call, strings [][]byte) errno {
	size := 0
	for _, s := range strings {
		size += len(s)
	}
	if !c.putU32(c.u32(0), uint32(len(strings))) || !c.putU32(c.u32(1), uint32(size)) {
		return errnoFault
	}
	return errnoOK
}

// putStrings writes pointers to the strings and the strings, which end in a
// zero byte.
func putStrings(c call, strings [][]byte) errno {
	pointers := c.bytes(c.u32(0), uint32(4*len(strings)))
	if pointers == nil && len(strings) > 0 {
		return errnoFault
	}
	at := c.u32(1)
	for i, s := range strings {
		place := c.bytes(at, uint32(len(s)))
		if place == nil {
			return errnoFault
		}
		copy(place, s)
		binary.LittleEndian.PutUint32(pointers[4*i:], at)
		at += uint32(len(s))
	}
	return errnoOK
}
