package state

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestPlacesAreFoundAgain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var p places
		var want []place
		item := uint32(0)
		for range rapid.IntRange(0, 300).Draw(rt, "places") {
			at := place{index: item, item: item}
			if rapid.IntRange(0, 3).Draw(rt, "odd") == 0 {
				at.item += uint32(rapid.IntRange(0, 1000).Draw(rt, "gap"))
				at.index = rapid.Uint32Range(0, 9_999_999).Draw(rt, "index")
				at.failed = rapid.Bool().Draw(rt, "failed")
			}
			p.add(at)
			want = append(want, at)
			item = at.item + 1
		}
		p.trim()
		for k, at := range want {
			if got := p.at(uint32(k)); got != at {
				rt.Fatalf("place %d of %d: got %+v, want %+v", k, len(want), got, at)
			}
		}
		k := 0
		p.each(func(got place) {
			if got != want[k] {
				rt.Fatalf("place %d in order: got %+v, want %+v", k, got, want[k])
			}
			k++
		})
		var again places
		if err := again.decode(p.codes, place{index: 10_000_000, item: 1 << 20}); err != nil || !bytes.Equal(again.codes, p.codes) {
			rt.Fatalf("decoded and coded again: %v", err)
		}
		if len(p.codes) > maxPlaceSize*len(want) || len(again.marks) != len(p.marks) {
			rt.Fatalf("%d bytes for %d places", len(p.codes), len(want))
		}
	})
}

func TestPlacesInOrderCostAByteEach(t *testing.T) {
	var p places
	for i := range uint32(10_000) {
		p.add(place{index: i, item: i})
	}
	if len(p.codes) != 10_000 {
		t.Errorf("got %d bytes for 10,000 places", len(p.codes))
	}
}

func TestPlacesBeyondWhatThereIsAreRefused(t *testing.T) {
	limit := place{index: 10, item: 10}
	for name, codes := range map[string][]byte{
		"an index below 0":    {1 << 2},
		"an index beyond":     {20 << 2},
		"an item beyond":      {1, 10},
		"a gap that is huge":  {1, 0xff, 0xff, 0xff, 0x7f},
		"a code that is huge": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"a code cut off":      {0x80},
		"a gap cut off":       {1},
	} {
		var p places
		if err := p.decode(codes, limit); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
