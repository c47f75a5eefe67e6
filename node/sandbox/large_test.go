package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// largeModule is a command of size bytes. So many of them are code, of a kind
// that becomes ten times as large when it is compiled: functions that follow a
// chain of pointers, which nobody calls. The rest are data.
func largeModule(size, codeSize int) []byte {
	const steps = 500
	body := []byte{0, 0x20, 0} // (func (param i32) (result i32) (local.get 0)
	for i := range steps {
		body = append(body, 0x28, 2, byte(i%128)) // (i32.load offset=i)
	}
	body = append(body, 0x0b)
	body = append(binary.AppendUvarint(nil, uint64(len(body))), body...)
	count := codeSize / len(body)
	functions := append(binary.AppendUvarint(nil, uint64(count+1)), 0)
	code := append(binary.AppendUvarint(nil, uint64(count+1)), 2, 0, 0x0b) // _start
	for range count {
		functions = append(functions, 1)
		code = append(code, body...)
	}
	data := make([]byte, size-len(functions)-len(code))
	return join(preamble, section(1, 2, 0x60, 0, 0, 0x60, 1, 0x7f, 1, 0x7f), section(3, functions...),
		section(5, 1, 0, 3), exports, section(10, code...), section(11, append([]byte{1, 1}, appendBytes(nil, data)...)...))
}

// largePrograms are programs whose compilation takes much memory.
func largePrograms(t *testing.T) map[string]Program {
	t.Helper()
	share := 1
	switch {
	case raceEnabled: // which compiles ten times as slowly, and is no measure
		share = 60
	case testing.Short():
		share = 8
	}
	return map[string]Program{
		"30 MB": moduleFile(t, largeModule(30_000_000, 14_000_000/share)),
		"75 MB": moduleFile(t, largeModule(75_000_000, 18_000_000/share)),
	}
}

func TestLargeAndSmallProgramsRunInEveryOrder(t *testing.T) {
	large := largePrograms(t)
	dir := t.TempDir()
	small := func(p *Pool, memory uint32) {
		wantOK(t, runAll(t, p, builtin(t, "upper"), Task{Stdin: []byte("on"), MemoryMiB: memory})[0], "ON")
		if err := p.Check(context.Background(), builtin(t, "cat").Path); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
	for _, order := range [][]string{{"75 MB", "30 MB"}, {"30 MB", "75 MB"}, {"75 MB", "75 MB"}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			p := testPool(t, Options{CacheDir: dir, compileTimeout: 10 * time.Minute})
			for i, name := range order {
				for _, memory := range []uint32{1024, 16, 256} {
					start := time.Now()
					wantOK(t, runAll(t, p, large[name], Task{MemoryMiB: memory})[0], "")
					t.Logf("%s within %d MiB: %v", name, memory, time.Since(start))
					small(p, [...]uint32{16, 1024}[i])
				}
			}
		})
	}
}

func TestALargeCheckLeavesTheNextProgramInPeace(t *testing.T) {
	large := largePrograms(t)["30 MB"]
	for _, dir := range []string{t.TempDir(), ""} {
		p := testPool(t, Options{CacheDir: dir, compileTimeout: 10 * time.Minute})
		if err := p.Check(context.Background(), large.Path); err != nil {
			t.Errorf("Check: %v", err)
		}
		if err := p.Check(context.Background(), builtin(t, "cat").Path); err != nil {
			t.Errorf("Check of a small program: %v", err)
		}
		wantOK(t, runAll(t, p, builtin(t, "upper"), Task{Stdin: []byte("on"), MemoryMiB: 16})[0], "ON")
	}
}
