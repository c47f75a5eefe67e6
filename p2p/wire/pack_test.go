package wire

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestAPackHoldsItsItems(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 300)).Draw(t, "items")
		packed := EncodePack(items)
		if len(packed) > PackSize(items) {
			t.Fatalf("%d bytes, more than PackSize's %d", len(packed), PackSize(items))
		}
		got, err := DecodePack(packed)
		if err != nil || !slices.EqualFunc(got, items, bytes.Equal) {
			t.Fatalf("%d items come back as %d, %v", len(items), len(got), err)
		}
		for i := range items {
			item, err := PackItem(packed, i)
			if err != nil || !bytes.Equal(item, items[i]) {
				t.Fatalf("item %d is %q, %v; want %q", i, item, err, items[i])
			}
		}
	})
}

func TestALargestPackIsDecoded(t *testing.T) {
	items := make([][]byte, MaxPackItems)
	if got, err := DecodePack(EncodePack(items)); err != nil || len(got) != MaxPackItems {
		t.Errorf("%d items, %v; want %d", len(got), err, MaxPackItems)
	}
	if _, err := DecodePack(EncodePack(append(items, nil))); CodeOf(err) != Code_CODE_INVALID {
		t.Errorf("one more: %v, want CODE_INVALID", err)
	}
}

func TestDamagedPacksAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":                     {},
		"a number without an end":   {0x80},
		"a number above 64 bits":    bytes.Repeat([]byte{0xff}, 11),
		"a number with a long form": {0x81, 0x00, 0x00},
		"more items than bytes":     {3, 0, 0},
		"lengths cut off":           {2, 0},
		"a length with a long form": {1, 0x80, 0x00},
		"an item cut off":           {1, 5, 'a'},
		"an item of 2^64-1 bytes":   {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"bytes after the items":     {1, 1, 'a', 'b'},
		"no items and bytes":        {0, 0},
	} {
		if items, err := DecodePack(b); CodeOf(err) != Code_CODE_INVALID {
			t.Errorf("%s: %q, %v; want CODE_INVALID", name, items, err)
		}
	}
	for _, i := range []int{-1, 1} {
		if _, err := PackItem([]byte{1, 1, 'a'}, i); err == nil {
			t.Errorf("item %d of one: no error", i)
		}
	}
}

func TestAnItemCannotGrowIntoTheNext(t *testing.T) {
	items, err := DecodePack(EncodePack([][]byte{[]byte("a"), []byte("b")}))
	if err != nil {
		t.Fatal(err)
	}
	_ = append(items[0], 'x')
	if string(items[1]) != "b" {
		t.Errorf("appending to item 0 made item 1 %q", items[1])
	}
}

// FuzzDecodePack: what is decoded is what EncodePack writes, byte for byte.
func FuzzDecodePack(f *testing.F) {
	f.Add(EncodePack(nil))
	f.Add(EncodePack([][]byte{[]byte("one\n"), nil, bytes.Repeat([]byte{7}, 200)}))
	f.Add([]byte{2, 0x80, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := DecodePack(b)
		if err != nil {
			return
		}
		if again := EncodePack(items); !bytes.Equal(again, b) {
			t.Errorf("%x decodes to what encodes as %x", b, again)
		}
	})
}
