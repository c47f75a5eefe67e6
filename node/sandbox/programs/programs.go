package programs

import (
	"embed"
	"strings"
)

//go:embed *.wasm
var files embed.FS

// Get returns the module of the built-in program with that name. The caller
// must not change the bytes.
func Get(name string) ([]byte, bool) {
	module, err := files.ReadFile(name + ".wasm")
	return module, err == nil
}

// Names returns the names of the built-in programs, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".wasm"))
	}
	return names
}
