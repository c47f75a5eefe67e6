package blob

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestAFullDiskIsNoSpaceAndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("needs the right to mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var stored [][]byte
	for {
		data := randomPage(wire.PageSize)
		if _, err = s.Put(data); err != nil {
			break
		}
		stored = append(stored, data)
	}
	if wire.CodeOf(err) != wire.Code_CODE_NO_SPACE || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v, want CODE_NO_SPACE that names %s", err, dir)
	}
	if len(stored) < 2 || s.Size() != uint64(len(stored))*wire.PageSize {
		t.Errorf("%d pages fit in 3 MiB, and Size is %d", len(stored), s.Size())
	}
	for _, data := range stored {
		mustHave(t, s, wire.HashOf(data), data)
	}
	if err := s.Delete(wire.HashOf(stored[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(randomPage(wire.PageSize)); err != nil {
		t.Errorf("once there is room again: %v", err)
	}
}
