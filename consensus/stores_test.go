package consensus

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// written makes a folder with a log of some length, and returns it.
func written(t *testing.T) (n *node) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n = newNodeIn(t, newNetwork(), "founder", dir).found()
		for i := range 50 {
			propose(t, []*node{n}, rename(n.self.id, n.self.id, fmt.Sprintf("%d %s", i, strings.Repeat("name ", 15))))
		}
		n.quit()
	})
	return n
}

func TestADamagedLogIsNamedAndLeftAsItIs(t *testing.T) {
	n := written(t)
	path := filepath.Join(n.dir, logFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(marker string) func() []byte {
		return func() []byte {
			bad := bytes.Clone(good)
			i := bytes.Index(bad, []byte(marker))
			if i < 0 {
				t.Fatalf("the log does not hold %q", marker)
			}
			bad[i] ^= 1
			return bad
		}
	}
	tests := map[string]func() []byte{
		"no database":   func() []byte { return bytes.Repeat([]byte("x"), len(good)) },
		"cut short":     func() []byte { return good[:len(good)/4] },
		"one page":      func() []byte { return good[:os.Getpagesize()] },
		"a flipped bit": flip("name name"),
		"zeros in middle": func() []byte {
			return append(append(bytes.Clone(good[:8<<10]), make([]byte, 16<<10)...), good[24<<10:]...)
		},
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			bad := damage()
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			g, err := Open(n.options())
			if err == nil {
				g.Close()
				t.Fatal("it was opened")
			}
			wantCode(t, err, wire.Code_CODE_INTERNAL)
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("the error %q does not say that %s is damaged", err, path)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, bad) {
				t.Errorf("the damaged file was changed (%v)", err)
			}
		})
	}
}

func TestAFolderInUseIsAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, newNetwork(), "founder")
		g, err := Open(n.options())
		if err == nil {
			g.Close()
			t.Fatal("it was opened twice")
		}
		wantCode(t, err, wire.Code_CODE_CONFLICT)
		if !strings.Contains(err.Error(), "in use by another process") {
			t.Errorf("the error %q does not say that the folder is in use", err)
		}
	})
}

func TestAFolderThatCannotBeMadeIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := Open(Options{Self: "x", Dir: filepath.Join(file, "raft"), Streams: newNetwork().listen("x")})
	if err == nil {
		g.Close()
		t.Fatal("it was opened")
	}
}
