package programs

import (
	"bytes"
	"slices"
	"testing"
)

func TestBuiltInProgramsAreThoseThatTheDocumentsName(t *testing.T) {
	want := []string{"cat", "noop", "render", "spin", "upper", "wordcount"}
	if got := Names(); !slices.Equal(got, want) {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	for _, name := range want {
		if module, ok := Get(name); !ok || !bytes.HasPrefix(module, []byte("\x00asm\x01\x00\x00\x00")) {
			t.Errorf("Get(%q) is not a module", name)
		}
	}
	for _, name := range []string{"", "none", "../programs/cat", "cat.wasm"} {
		if _, ok := Get(name); ok {
			t.Errorf("Get(%q) found something", name)
		}
	}
}
