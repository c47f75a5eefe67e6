package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"rsc.io/qr"
)

const (
	// qrQuiet is the light border around a QR code, in modules: readers want it.
	qrQuiet = 4
	// qrModule is the size of a module in pictures, in pixels.
	qrModule = 8
)

// checkQR reports whether a file's name says which kind of picture it is to be.
func checkQR(file string) error {
	switch strings.ToLower(filepath.Ext(file)) {
	case ".png", ".svg":
		return nil
	}
	return usagef("--qr %s: the name of the picture ends in .png or .svg", file)
}

// writeQR writes text as a picture, for this user's eyes only.
func writeQR(file, text string) error {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return fmt.Errorf("drawing a QR code: %w", err)
	}
	code.Scale = qrModule
	picture := code.PNG()
	if strings.EqualFold(filepath.Ext(file), ".svg") {
		picture = svgQR(code)
	}
	return os.WriteFile(file, picture, 0o600)
}

// svgQR draws the dark modules as one path, a run of them at a time.
func svgQR(code *qr.Code) []byte {
	var b bytes.Buffer
	side := code.Size + 2*qrQuiet
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" shape-rendering="crispEdges">`,
		side*qrModule, side*qrModule, side, side)
	fmt.Fprintf(&b, `<path fill="#fff" d="M0 0h%dv%dh-%dz"/><path fill="#000" d="`, side, side, side)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+qrQuiet, y+qrQuiet, run, run)
				x += run
			}
		}
	}
	b.WriteString("\"/></svg>\n")
	return b.Bytes()
}

// drawQR draws text with half blocks, two modules high. On a terminal the
// colours are said; elsewhere a light module is ink, for dark backgrounds.
func drawQR(w io.Writer, text string, terminal bool) error {
	code, err := qr.Encode(text, qr.L) // the smaller the better: a screen is clean
	if err != nil {
		return fmt.Errorf("drawing a QR code: %w", err)
	}
	const quiet = 2 // the least that readers do with
	blocks := map[[2]bool]string{{false, false}: "█", {false, true}: "▀", {true, false}: "▄", {true, true}: " "}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		if terminal {
			b.WriteString("\x1b[97;40m")
		}
		for x := -quiet; x < code.Size+quiet; x++ {
			// Modules outside the code are light.
			b.WriteString(blocks[[2]bool{code.Black(x, y), code.Black(x, y+1)}])
		}
		if terminal {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	_, err = io.WriteString(w, b.String())
	return err
}
