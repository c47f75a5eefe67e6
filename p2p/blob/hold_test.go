package blob

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func TestAHoldNeedsMostOfTheVoters(t *testing.T) {
	data := randomPage(100)
	h := wire.HashOf(data)
	tests := []struct {
		name   string
		on     []int // who has the page
		broken map[int]fault
		want   wire.Code // 0: it is held
		after  []int     // who has it then
	}{
		{"all have it", []int{0, 1, 2}, nil, 0, []int{0, 1, 2}},
		{"two have it", []int{1, 2}, nil, 0, []int{1, 2}},
		{"two have it and one is away", []int{0, 1}, map[int]fault{2: refusing}, 0, []int{0, 1}},
		{"this one has it", []int{0}, nil, 0, []int{0, 1, 2}},
		{"another has it", []int{2}, nil, 0, []int{0, 1, 2}},
		{"one has it and another is away", []int{0}, map[int]fault{1: hanging}, 0, []int{0, 2}},
		{"nobody has it", nil, nil, wire.Code_CODE_NOT_FOUND, nil},
		{"nobody who is there has it", []int{1}, map[int]fault{1: mute}, wire.Code_CODE_NOT_FOUND, []int{1}},
		{"most are away", []int{0, 1, 2}, map[int]fault{1: refusing, 2: hanging}, wire.Code_CODE_UNAVAILABLE, []int{0, 1, 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, 3)
				defer c.close()
				for _, i := range test.on {
					mustPut(t, c.nodes[i].store, data)
				}
				for i, fault := range test.broken {
					c.nodes[i].fault.Store(int32(fault))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				id := wire.NewHoldID()
				err := c.nodes[0].Hold(ctx, id, []wire.Hash{h, h})
				if got := wire.CodeOf(err); got != test.want {
					t.Fatalf("held: %v, want code %v", err, test.want)
				}
				if missing := errors.Is(err, ErrMissing); missing != (test.want == wire.Code_CODE_NOT_FOUND) {
					t.Errorf("%v is said to be a missing page: %v", err, missing)
				}
				if test.want != 0 {
					return
				}
				synctest.Wait()
				for _, i := range test.after {
					if n := c.nodes[i]; !n.store.Has(h) || !n.holds.has(h) {
						t.Errorf("node %d has it: %v, and keeps it: %v", i, n.store.Has(h), n.holds.has(h))
					}
				}
			})
		})
	}
}

func TestAHoldOfManyPagesNamesWhatIsMissing(t *testing.T) {
	c := newCluster(t, 3, 3)
	var pages []wire.Hash
	for range maxHeldPages + 10 {
		data := randomPage(10)
		h := wire.HashOf(data)
		for _, n := range c.nodes[1:] {
			if err := errors.Join(os.MkdirAll(n.store.folder(int(h[0])), 0o700), os.WriteFile(n.store.path(h), data, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		pages = append(pages, h)
	}
	c.setNamed(true, pages...) // as a program's pages are
	id := wire.NewHoldID()
	if err := c.nodes[0].Hold(t.Context(), id, pages); err != nil {
		t.Fatal(err)
	}
	for _, h := range pages {
		if !c.nodes[1].holds.has(h) {
			t.Fatalf("page %v is not kept by who had it", h)
		}
	}
	if err := c.nodes[0].Hold(t.Context(), id, append(pages, wire.Hash{1})); !errors.Is(err, ErrMissing) {
		t.Errorf("with a page that nobody has: %v", err)
	}
}

// A damaged page is none, and one that is put on who has it damaged is mended.
func TestAHoldOfADamagedPageMendsIt(t *testing.T) {
	c := newCluster(t, 2, 2)
	data := randomPage(100)
	for _, n := range c.nodes {
		mustPut(t, n.store, data)
	}
	h := wire.HashOf(data)
	if err := os.WriteFile(c.nodes[1].store.path(h), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[0].Hold(t.Context(), wire.NewHoldID(), []wire.Hash{h}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.nodes[1].store.Get(h); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the damaged page is not mended: %v", err)
	}
}
