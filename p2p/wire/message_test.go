package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func TestMessagesAreReadAsTheyAreWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream bytes.Buffer
		texts := rapid.SliceOf(rapid.String()).Draw(t, "texts")
		for _, text := range texts {
			if err := WriteMessage(&stream, MaxFrame, &Goodbye{Reason: text}); err != nil {
				t.Fatal(err)
			}
		}
		r := iotest.OneByteReader(&stream)
		for _, want := range texts {
			got := &Goodbye{}
			if err := ReadMessage(r, MaxFrame, got); err != nil || got.GetReason() != want {
				t.Fatalf("got %q, %v; want %q", got.GetReason(), err, want)
			}
		}
		if err := ReadMessage(r, MaxFrame, &Goodbye{}); err != io.EOF {
			t.Fatalf("at the end: %v, want io.EOF", err)
		}
	})
}

func TestReadMessageReadsNothingBeyond(t *testing.T) {
	stream := bytes.NewReader(append(mustAppend(t, &Goodbye{Reason: "bye"}), "rest"...))
	if err := ReadMessage(stream, MaxFrame, &Goodbye{}); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(stream); string(rest) != "rest" {
		t.Errorf("%q is left, want %q", rest, "rest")
	}
}

func TestBadMessagesAreErrors(t *testing.T) {
	whole := mustAppend(t, &Goodbye{Reason: "bye"})
	for name, test := range map[string]struct {
		sent []byte
		want error // nil: CODE_INVALID
	}{
		"nothing":             {nil, io.EOF},
		"a length cut off":    {whole[:3], io.ErrUnexpectedEOF},
		"a length alone":      {whole[:4], io.ErrUnexpectedEOF},
		"a message cut off":   {whole[:6], io.ErrUnexpectedEOF},
		"one above the limit": {binary.BigEndian.AppendUint32(nil, 101), nil},
		"a length of 4 GiB":   {[]byte{0xff, 0xff, 0xff, 0xff}, nil},
		"not protobuf":        {[]byte{0, 0, 0, 2, 0xff, 0xff}, nil},
		"not UTF-8":           {[]byte{0, 0, 0, 3, 0x0a, 1, 0xff}, nil},
	} {
		err := ReadMessage(bytes.NewReader(test.sent), 100, &Goodbye{})
		if test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if test.want == nil && CodeOf(err) != Code_CODE_INVALID {
			t.Errorf("%s: %v, want CODE_INVALID", name, err)
		}
	}
}

func TestAMessageAboveTheLimitIsNotWritten(t *testing.T) {
	var out bytes.Buffer
	m := &Goodbye{Reason: strings.Repeat("x", 98)} // 100 bytes
	if err := WriteMessage(&out, 99, m); err == nil || out.Len() != 0 {
		t.Errorf("above it: %v, and %d bytes", err, out.Len())
	}
	if err := WriteMessage(&out, 100, m); err != nil || out.Len() != 104 {
		t.Errorf("at it: %v, and %d bytes; want 104", err, out.Len())
	}
	if got, err := AppendMessage([]byte("before"), 99, m); err == nil || string(got) != "before" {
		t.Errorf("AppendMessage: %q, %v; want what was there before", got, err)
	}
}

func mustAppend(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := AppendMessage(nil, MaxFrame, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzReadMessage: whatever comes, a frame is read within the limit or is an
// error, and what was read can be written.
func FuzzReadMessage(f *testing.F) {
	f.Add(mustAppend(f, &Frame{Kind: &Frame_Ping{Ping: &Ping{}}}))
	f.Add(mustAppend(f, &Frame{Kind: &Frame_Hello{Hello: &Hello{Version: 1, DeviceId: "x", Nonce: []byte{1, 2}}}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		m := &Frame{}
		if err := ReadMessage(r, 1<<10, m); err != nil {
			return
		}
		if used := len(sent) - r.Len(); used > lengthSize+1<<10 {
			t.Errorf("%d bytes were read", used)
		}
		if _, err := AppendMessage(nil, MaxFrame, m); err != nil {
			t.Error(err)
		}
	})
}
