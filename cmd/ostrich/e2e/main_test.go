package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// ostrich is the built program, and scratch the folder that it lies in, with
// all that the tests make beside it. TestMain sets both.
var ostrich, scratch string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	// Short, for the sockets in it.
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch, ostrich = dir, filepath.Join(dir, "ostrich")
	if runtime.GOOS == "windows" {
		ostrich += ".exe"
	}
	if err := build(ostrich); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the program.
func build(path string, flags ...string) error {
	args := append([]string{"build", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, "github.com/ostrich-legs/ostrich/cmd/ostrich")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return nil
}

// variants are the programs that were built with a tag, by the tag.
var variants struct {
	sync.Mutex
	paths map[string]string
}

// variant builds the program with a build tag, once, and returns its path.
func variant(t *testing.T, tag string) string {
	t.Helper()
	variants.Lock()
	defer variants.Unlock()
	if path, ok := variants.paths[tag]; ok {
		return path
	}
	path := filepath.Join(scratch, tag)
	if err := build(path, "-tags", tag); err != nil {
		t.Fatal(err)
	}
	if variants.paths == nil {
		variants.paths = map[string]string{}
	}
	variants.paths[tag] = path
	return path
}

// folder makes a folder with a short name that is gone after the test.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Nobody looks at it: a node may have left files of a moment ago.
		_ = os.RemoveAll(dir)
	})
	return dir
}
