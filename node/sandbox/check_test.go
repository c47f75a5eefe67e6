package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// importing is a module that imports one thing, of the given kind and type.
func importing(module, function string, kind ...byte) []byte {
	return join(preamble, voidType, section(2, join([]byte{1}, name(module), name(function), kind)...),
		oneFunc, oneMemory, section(7, join([]byte{2}, name("_start"), []byte{0, 1}, name("memory"), []byte{2, 0})...), emptyBody)
}

func TestCheckSaysWhatAFileIsInsteadOfAProgram(t *testing.T) {
	p := testPool(t, Options{})
	for _, c := range []struct {
		name   string
		module []byte
		text   string // "" if it is one
	}{
		{"minimal", minimal(), ""},
		{"empty", nil, "it is empty"},
		{"text", []byte("hello, world"), "not WebAssembly: its first bytes"},
		{"wat", []byte("(module (func))"), "wat2wasm"},
		{"ELF", append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 100)...), "a native executable"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "a WebAssembly component, not a core module"},
		{"other version", []byte("\x00asm\x02\x00\x00\x00"), "version 2"},
		{"cut short", minimal()[:20], "cut short or damaged"},
		{"invalid code", join(preamble, voidType, oneFunc, oneMemory, exports, section(10, 1, 3, 0, 0x6a, 0x0b)), "not a valid WebAssembly module"},
		{"reactor", join(preamble, voidType, oneFunc, oneMemory, section(7, join([]byte{2}, name("_initialize"), []byte{0, 0}, name("memory"), []byte{2, 0})...), emptyBody), "a library (a reactor), not a command"},
		{"no memory", join(preamble, voidType, oneFunc, section(7, join([]byte{1}, name("_start"), []byte{0, 0})...), emptyBody), "exports no memory"},
		{"unknown module", importing("env", "abort", 0, 0), `imports from "env"`},
		{"old WASI", importing("wasi_unstable", "fd_write", 0, 0), `imports from "wasi_unstable"`},
		{"unknown function", importing(wasiModule, "fd_fly", 0, 0), `imports "fd_fly", which WASI preview 1 does not have`},
		{"memory for a function", importing(wasiModule, "fd_write", 2, 0, 1), `imports "fd_write", which`},
		{"other parameters", importing(wasiModule, "fd_write", 0, 0), "with other parameters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := p.Check(context.Background(), moduleFile(t, c.module).Path)
			switch {
			case c.text == "" && err != nil:
				t.Errorf("Check: %v", err)
			case c.text != "" && (wire.CodeOf(err) != wire.Code_CODE_INVALID || !strings.Contains(err.Error(), c.text)):
				t.Errorf("Check: %v (%v), want %q", err, wire.CodeOf(err), c.text)
			}
		})
	}
	if got := p.Status().Children; got != 1 {
		t.Errorf("%d children after the checks, want 1", got)
	}
}

func TestCheckRefusesWhatIsTooLarge(t *testing.T) {
	p := testPool(t, Options{})
	path := filepath.Join(t.TempDir(), "large.wasm")
	if err := os.WriteFile(path, preamble, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, wire.MaxProgram+1); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(context.Background(), path); err == nil || !strings.Contains(err.Error(), "at most 256 MiB") {
		t.Errorf("Check: %v", err)
	}
}

func TestCheckNeedsNoSlot(t *testing.T) {
	p := testPool(t, Options{})
	p.SetSlots(0)
	for _, name := range programs.Names() {
		if err := p.Check(context.Background(), builtin(t, name).Path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Check(ctx, builtin(t, "noop").Path); !errors.Is(err, context.Canceled) {
		t.Errorf("Check with a cancelled context: %v", err)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(minimal())
	f.Add(importing("env", "abort", 0, 0))
	f.Add(join(preamble, section(2, join([]byte{5},
		name("a"), name("t"), []byte{1, 0x70, 1, 1, 2}, name("a"), name("m"), []byte{2, 0, 1},
		name("a"), name("g"), []byte{3, 0x7f, 0}, name("a"), name("e"), []byte{4, 0, 0},
		name("a"), name("f"), []byte{0, 0})...)))
	f.Fuzz(func(t *testing.T, module []byte) {
		if err := inspect(module); err != nil && len(err.Error()) > wire.MaxErrorText {
			t.Errorf("a text of %d bytes", len(err.Error()))
		}
	})
}

func TestImportsOfEveryKindAreRead(t *testing.T) {
	module := join(preamble, section(0, 1, 'x'), section(2, join([]byte{4},
		name("a"), name("t"), []byte{1, 0x70, 1, 1, 2}, name("b"), name("m"), []byte{2, 0, 1},
		name("c"), name("g"), []byte{3, 0x7f, 0}, name("d"), name("f"), []byte{0, 0})...))
	imports, err := importedNames(module)
	if err != nil || len(imports) != 4 {
		t.Fatalf("got %v, %v", imports, err)
	}
	var kinds bytes.Buffer
	for _, i := range imports {
		kinds.WriteString(i.module + i.name)
	}
	if kinds.String() != "atbmcgdf" {
		t.Errorf("got %s", kinds.String())
	}
}
