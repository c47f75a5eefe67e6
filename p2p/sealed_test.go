package p2p

import (
	"testing"
)

type content struct {
	Name   string `json:"name"`
	Number uint64 `json:"number"`
}

func TestASealedFileIsReadAsItWasWritten(t *testing.T) {
	want := content{Name: "straw & <berries>", Number: 7}
	data, err := Seal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got content
	if err := Unseal(data, &got); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestAFileFromBeforeSealsIsRead(t *testing.T) {
	var got content
	if err := Unseal([]byte(`{"name":"old","number":1}`), &got); err != nil || got != (content{"old", 1}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Whatever bit flips and wherever the file ends, it is read as it was or not at
// all: white space, and the case of keys, say nothing.
func TestDamageOfASealedFileIsNoticed(t *testing.T) {
	want := content{Name: "straw", Number: 1}
	data, err := Seal(want)
	if err != nil {
		t.Fatal(err)
	}
	check := func(damaged []byte, what string, at int) {
		var got content
		if err := Unseal(damaged, &got); err == nil && got != want {
			t.Errorf("%s at %d: read as %+v", what, at, got)
		}
	}
	for at := range data {
		check(data[:at], "cut off", at)
		for bit := range 8 {
			damaged := append([]byte{}, data...)
			damaged[at] ^= 1 << bit
			check(damaged, "bit flipped", at)
		}
	}
}
