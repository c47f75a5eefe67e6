package sandbox

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// section encodes a section of a module.
func section(id byte, body ...byte) []byte {
	return append(binary.AppendUvarint([]byte{id}, uint64(len(body))), body...)
}

// name encodes a name.
func name(s string) []byte { return appendBytes(nil, s) }

// join joins the parts of a module.
func join(parts ...[]byte) []byte {
	var b []byte
	for _, part := range parts {
		b = append(b, part...)
	}
	return b
}

var (
	preamble  = []byte("\x00asm\x01\x00\x00\x00")
	voidType  = section(1, 1, 0x60, 0, 0) // one type: no parameters, no results
	oneFunc   = section(3, 1, 0)
	oneMemory = section(5, 1, 0, 1)
	exports   = section(7, join([]byte{2}, name("_start"), []byte{0, 0}, name("memory"), []byte{2, 0})...)
	emptyBody = section(10, 1, 2, 0, 0x0b)
)

// minimal is the smallest command there is.
func minimal() []byte { return join(preamble, voidType, oneFunc, oneMemory, exports, emptyBody) }

func TestAMinimalModuleRuns(t *testing.T) {
	p := testPool(t, Options{})
	wantOK(t, runAll(t, p, moduleFile(t, minimal()), Task{MemoryMiB: 1})[0], "")
}

func TestAModuleThatBeginsWithMoreMemoryThanItsBoundFails(t *testing.T) {
	p := testPool(t, Options{})
	module := join(preamble, voidType, oneFunc, section(5, 1, 0, 0x80, 0x04), exports, emptyBody) // 512 pages
	r := runAll(t, p, moduleFile(t, module), Task{MemoryMiB: 31}, Task{MemoryMiB: 32})
	if r[0].Failure != wire.FailureKind_FAILURE_KIND_MEMORY || !strings.Contains(r[0].Error, "it needs 32 MiB of memory to begin with, more than its bound of 31 MiB") {
		t.Errorf("got %v %q", r[0].Failure, r[0].Error)
	}
	wantOK(t, r[1], "")
}

// hugeTables is a module with tables of 100 million references each.
func hugeTables(count byte) []byte {
	tables := []byte{count}
	for range count {
		tables = append(tables, 0x70, 0)
		tables = binary.AppendUvarint(tables, 100_000_000)
	}
	return join(preamble, voidType, oneFunc, section(4, tables...), oneMemory, exports, emptyBody)
}

func TestATaskThatExhaustsItsSandboxFailsForMemory(t *testing.T) {
	if runtime.GOOS != "linux" || raceEnabled {
		t.Skip("the system does not bound the memory of a process, or it is no measure")
	}
	p := testPool(t, Options{})
	r := runAll(t, p, moduleFile(t, hugeTables(20)), Task{MemoryMiB: 1})[0]
	if r.Failure != wire.FailureKind_FAILURE_KIND_MEMORY {
		t.Errorf("got %v %q", r.Failure, r.Error)
	}
	wantOK(t, runAll(t, p, builtin(t, "noop"), Task{})[0], "")
}
