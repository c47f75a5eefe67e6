package sandbox

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// millisecond is the argument of spin that takes about that long.
func millisecond(b *testing.B, p *Pool, spin Program) int {
	b.Helper()
	const probe = 100_000
	r := runAll(b, p, spin, Task{Args: []string{"spin", strconv.Itoa(probe)}})[0]
	return int(probe * float64(time.Millisecond) / float64(r.Duration))
}

// BenchmarkTasks compares tasks in a child with a bare loop of wazero in this
// process, as its users write it.
func BenchmarkTasks(b *testing.B) {
	p := testPool(b, Options{})
	ms := millisecond(b, p, builtin(b, "spin"))
	for _, c := range []struct {
		name, program string
		args          []string
	}{
		{"noop", "noop", []string{"noop"}},
		{"1ms", "spin", []string{"spin", strconv.Itoa(ms)}},
		{"10ms", "spin", []string{"spin", strconv.Itoa(10 * ms)}},
	} {
		prog := builtin(b, c.program)
		b.Run(c.name+"/bare", func(b *testing.B) { benchmarkBare(b, prog, c.args) })
		b.Run(c.name+"/child", func(b *testing.B) { benchmarkChild(b, p, prog, c.args) })
	}
}

func benchmarkChild(b *testing.B, p *Pool, prog Program, args []string) {
	tasks := make([]Task, 1024)
	for i := range tasks {
		tasks[i] = Task{Args: args, Env: []string{fmt.Sprintf("OSTRICH_INDEX=%d", i)}}
	}
	runAll(b, p, prog, tasks[0])
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(tasks) {
		err := p.Run(context.Background(), prog, tasks[:min(left, len(tasks))], func(_ int, r Result) {
			if r.Error != "" {
				b.Fatal(r.Error)
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

func benchmarkBare(b *testing.B, prog Program, args []string) {
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, rt)
	module, err := os.ReadFile(prog.Path)
	if err != nil {
		b.Fatal(err)
	}
	compiled, err := rt.CompileModule(ctx, module)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		mod, err := rt.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithArgs(args...))
		if err != nil {
			b.Fatal(err)
		}
		mod.Close(ctx)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkStart measures a child from nothing to the result of its first task.
func BenchmarkStart(b *testing.B) {
	prog := builtin(b, "noop")
	for range b.N {
		p := New(Options{Slots: 1})
		runAll(b, p, prog, Task{})
		p.Close()
	}
}
