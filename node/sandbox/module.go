package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

const (
	startName  = "_start"
	memoryName = "memory"

	// maxImports bounds what a module imports: WASI preview 1 has 46 functions,
	// and compilers import each once.
	maxImports = 1000
)

// inspect reports why the bytes cannot be a WASI preview 1 command module, as
// far as that shows before it is compiled.
func inspect(module []byte) error {
	if len(module) < 8 || string(module[:4]) != "\x00asm" {
		return notWasm(module)
	}
	version, layer := binary.LittleEndian.Uint16(module[4:]), binary.LittleEndian.Uint16(module[6:])
	switch {
	case layer == 1:
		return errors.New("it is a WebAssembly component, not a core module: build it for WASI preview 1 (wasm32-wasip1)")
	case layer != 0 || version != 1:
		return fmt.Errorf("it is WebAssembly of version %d, layer %d: only version 1 core modules run here", version, layer)
	}
	imports, err := importedNames(module)
	if err != nil {
		return err
	}
	return checkImports(imports)
}

// notWasm says what the bytes look like instead.
func notWasm(module []byte) error {
	switch {
	case len(module) == 0:
		return errors.New("it is empty")
	case bytes.HasPrefix(module, []byte("\x7fELF")), bytes.HasPrefix(module, []byte("MZ")), bytes.HasPrefix(module, []byte("\xcf\xfa\xed\xfe")):
		return errors.New("it is not WebAssembly but a native executable: build it for WASI preview 1 (wasm32-wasip1)")
	case bytes.HasPrefix(bytes.TrimSpace(module), []byte("(module")):
		return errors.New("it is WebAssembly text: translate it with wat2wasm first")
	}
	return errors.New("it is not WebAssembly: its first bytes are not \\0asm")
}

// importedName is something that a module wants from others.
type importedName struct {
	module, name string
	kind         byte // 0: a function
}

// importedNames lists what the module imports, of whatever kind.
func importedNames(module []byte) ([]importedName, error) {
	r := reader{b: module[8:]}
	for len(r.b) > 0 {
		id := r.take(1)
		body := r.bytes()
		if r.bad {
			return nil, errors.New("it is cut short or damaged: a section reaches beyond its end")
		}
		if id[0] == 2 {
			return decodeImports(reader{b: body})
		}
	}
	return nil, nil
}

func decodeImports(r reader) ([]importedName, error) {
	var imports []importedName
	n := r.uint()
	if n > maxImports {
		return nil, fmt.Errorf("it imports %d things: a program may import %d", n, maxImports)
	}
	for ; n > 0 && !r.bad; n-- {
		module, name, kind := string(r.bytes()), string(r.bytes()), r.take(1)
		if r.bad {
			break
		}
		imports = append(imports, importedName{module, name, kind[0]})
		skipImportType(&r, kind[0])
	}
	if r.bad {
		return nil, errors.New("it is damaged: its import section makes no sense")
	}
	return imports, nil
}

// skipImportType skips the description of an import of the given kind.
func skipImportType(r *reader, kind byte) {
	limits := func() {
		flags := r.uint()
		r.uint()
		if flags&1 != 0 {
			r.uint()
		}
	}
	switch kind {
	case 0: // a function: its type
		r.uint()
	case 1: // a table: its element type, limits
		r.take(1)
		limits()
	case 2: // a memory
		limits()
	case 3: // a global: its type, mutability
		r.take(2)
	case 4: // a tag: attribute, type
		r.take(1)
		r.uint()
	default:
		r.b, r.bad = nil, true
	}
}

// checkImports refuses imports that are not WASI preview 1, naming the modules.
func checkImports(imports []importedName) error {
	var foreign []string
	known := map[string]bool{"proc_exit": true}
	for _, f := range functions() {
		known[f.name] = true
	}
	for _, name := range imports {
		switch {
		case name.module != wasiModule:
			foreign = append(foreign, fmt.Sprintf("%q", cut(name.module, 40)))
		case name.kind != 0 || !known[name.name]:
			return fmt.Errorf("it imports %q, which WASI preview 1 does not have", cut(name.name, 60))
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	slices.Sort(foreign)
	foreign = slices.Compact(foreign)
	if len(foreign) > 5 {
		foreign = append(foreign[:5], "…")
	}
	return fmt.Errorf("it imports from %s: a program may import from %s only", strings.Join(foreign, ", "), wasiModule)
}

// examine reports why a compiled module is not a command.
func examine(module wazero.CompiledModule) error {
	start, ok := module.ExportedFunctions()[startName]
	switch {
	case !ok:
		return errors.New("it exports no function _start: it is a library (a reactor), not a command")
	case len(start.ParamTypes()) > 0 || len(start.ResultTypes()) > 0:
		return errors.New("its function _start has parameters or results, which that of a command has not")
	case module.ExportedMemories()[memoryName] == nil:
		return errors.New("it exports no memory, without which it cannot use WASI")
	}
	params := map[string]string{}
	for _, f := range functions() {
		params[f.name] = f.params
	}
	for _, f := range module.ImportedFunctions() {
		_, name, _ := f.Import()
		want, result := valueTypes(params[name]), []api.ValueType{api.ValueTypeI32}
		if name == "proc_exit" {
			want, result = valueTypes("i"), nil
		}
		if !slices.Equal(f.ParamTypes(), want) || !slices.Equal(f.ResultTypes(), result) {
			return fmt.Errorf("it imports %q with other parameters than WASI preview 1 gives it", name)
		}
	}
	return nil
}

// cut returns at most n characters of s, with only what can be printed.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}
