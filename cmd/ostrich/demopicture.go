package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"io"
	"runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"golang.org/x/sync/errgroup"

	"github.com/ostrich-legs/ostrich/node/sandbox/programs"
)

// The picture of the demo.
const (
	pictureWidth, pictureHeight = 1280, 800
	tileSide                    = 64
	// stripHeight is the height of what the direct run renders at one time.
	stripHeight = 100
)

// tile is a rectangle of the picture.
type tile struct{ x, y, w, h int }

// line is the renderer's input.
func (t tile) line() string {
	return fmt.Sprintf("%d %d %d %d %d %d\n", t.x, t.y, t.w, t.h, pictureWidth, pictureHeight)
}

// tiles returns the tiles of the picture, row by row.
func tiles() []tile {
	var all []tile
	for y := 0; y < pictureHeight; y += tileSide {
		for x := 0; x < pictureWidth; x += tileSide {
			all = append(all, tile{x, y, min(tileSide, pictureWidth-x), min(tileSide, pictureHeight-y)})
		}
	}
	return all
}

// picture is red, green and blue of each pixel, row by row.
type picture struct{ pixels []byte }

func newPicture() *picture {
	return &picture{make([]byte, 3*pictureWidth*pictureHeight)}
}

// put places what the renderer wrote for a tile.
func (p *picture) put(t tile, rendered io.Reader) error {
	for row := range t.h {
		at := 3 * ((t.y+row)*pictureWidth + t.x)
		if _, err := io.ReadFull(rendered, p.pixels[at:at+3*t.w]); err != nil {
			return fmt.Errorf("the tile at %d,%d is too short: %w", t.x, t.y, err)
		}
	}
	if n, _ := io.ReadFull(rendered, make([]byte, 1)); n > 0 {
		return fmt.Errorf("the tile at %d,%d is too long", t.x, t.y)
	}
	return nil
}

func (p *picture) image() image.Image {
	img := image.NewNRGBA(image.Rect(0, 0, pictureWidth, pictureHeight))
	for i := range pictureWidth * pictureHeight {
		copy(img.Pix[4*i:], p.pixels[3*i:3*i+3])
		img.Pix[4*i+3] = 0xff
	}
	return img
}

// renderDirectly renders the picture with the same program in this process,
// without anything of Ostrich's in between.
func renderDirectly(ctx context.Context) ([]byte, error) {
	module, ok := programs.Get("render")
	if !ok {
		return nil, fmt.Errorf("the program render is missing")
	}
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig())
	defer r.Close(context.WithoutCancel(ctx))
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	compiled, err := r.CompileModule(ctx, module)
	if err != nil {
		return nil, fmt.Errorf("compiling the renderer: %w", err)
	}
	pic := newPicture()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for y := 0; y < pictureHeight; y += stripHeight {
		strip := tile{0, y, pictureWidth, min(stripHeight, pictureHeight-y)}
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			var out bytes.Buffer
			config := wazero.NewModuleConfig().WithName("").WithArgs("render").
				WithStdin(bytes.NewReader([]byte(strip.line()))).WithStdout(&out)
			m, err := r.InstantiateModule(ctx, compiled, config)
			if err != nil {
				return fmt.Errorf("running the renderer directly: %w", err)
			}
			m.Close(ctx)
			return pic.put(strip, &out)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return pic.pixels, nil
}
