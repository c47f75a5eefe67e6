package worker

import (
	"bytes"
	"compress/flate"
	"context"
	"testing"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

func deflate(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestARangeIsReadWhicheverWayItIsWritten(t *testing.T) {
	data := bytes.Repeat([]byte("no play "), 1000)
	for name, tt := range map[string]struct {
		answer *wire.ReadPageResponse
		limit  int
		want   []byte // nil: it is refused
	}{
		"plain":            {&wire.ReadPageResponse{Data: data}, len(data), data},
		"plain, too long":  {&wire.ReadPageResponse{Data: data}, len(data) - 1, nil},
		"deflated":         {&wire.ReadPageResponse{Data: deflate(t, data), Deflated: true}, len(data), data},
		"deflated, a bomb": {&wire.ReadPageResponse{Data: deflate(t, make([]byte, 64<<20)), Deflated: true}, len(data), nil},
		"not deflated":     {&wire.ReadPageResponse{Data: []byte("no play"), Deflated: true}, len(data), nil},
		"cut off":          {&wire.ReadPageResponse{Data: deflate(t, data)[:10], Deflated: true}, len(data), nil},
	} {
		got, err := rangeOf(tt.answer, tt.limit)
		if (err == nil) != (tt.want != nil) || !bytes.Equal(got, tt.want) {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(tt.want))
		}
	}
}

func TestAPageMayComeCompressed(t *testing.T) {
	page := bytes.Repeat([]byte("all work "), 100_000)
	ask := call(func(_ context.Context, r *wire.Request) (*wire.Response, error) {
		from := r.GetReadPage().GetOffset()
		to := min(from+r.GetReadPage().GetLength(), uint32(len(page)))
		return &wire.Response{Kind: &wire.Response_ReadPage{ReadPage: &wire.ReadPageResponse{
			Data: deflate(t, page[from:to]), Deflated: true, Size: uint32(len(page)),
		}}}, nil
	})
	got, err := ask.readPage(t.Context(), wire.HashOf(page), len(page))
	if err != nil || !bytes.Equal(got, page) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func FuzzRange(f *testing.F) {
	f.Add(deflate(f, []byte("hello")), 5, true)
	f.Add([]byte("hello"), 4, false)
	f.Fuzz(func(t *testing.T, data []byte, limit int, deflated bool) {
		limit = min(max(limit, 0), wire.MaxChunk)
		got, err := rangeOf(&wire.ReadPageResponse{Data: data, Deflated: deflated}, limit)
		if err == nil && len(got) > limit {
			t.Errorf("%d bytes where %d were asked for", len(got), limit)
		}
	})
}
