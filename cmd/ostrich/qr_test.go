package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rsc.io/qr"
)

const someLink = "http://192.168.1.20:7777/join#AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8"

// modules are the dark modules of a QR code, without its border.
func modules(t *testing.T, level qr.Level) []string {
	t.Helper()
	code, err := qr.Encode(someLink, level)
	if err != nil {
		t.Fatal(err)
	}
	return grid(code.Size, code.Black)
}

func grid(size int, dark func(x, y int) bool) (rows []string) {
	for y := range size {
		var row strings.Builder
		for x := range size {
			if dark(x, y) {
				row.WriteByte('#')
			} else {
				row.WriteByte('.')
			}
		}
		rows = append(rows, row.String())
	}
	return rows
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s shows\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAPictureShowsTheLink(t *testing.T) {
	dir := t.TempDir()
	want := modules(t, qr.M)
	size := len(want)
	for _, name := range []string{"a.png", "a.PNG", "a.svg"} {
		file := filepath.Join(dir, name)
		if err := checkQR(file); err != nil {
			t.Fatal(err)
		}
		if err := writeQR(file, someLink); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s, a secret, has mode %v, %v", name, info.Mode(), err)
		}
		picture, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dark := svgModules
		if !strings.HasSuffix(name, "svg") {
			dark = pngModules
		}
		same(t, name, grid(size, dark(t, picture)), want)
	}
}

func pngModules(t *testing.T, picture []byte) func(x, y int) bool {
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	return func(x, y int) bool {
		r, _, _, _ := img.At((x+qrQuiet)*qrModule+qrModule/2, (y+qrQuiet)*qrModule+qrModule/2).RGBA()
		return r < 0x8000
	}
}

func svgModules(t *testing.T, picture []byte) func(x, y int) bool {
	if err := xml.Unmarshal(picture, new(struct{})); err != nil {
		t.Fatalf("the SVG is no XML: %v", err)
	}
	dark := make(map[string]bool)
	for _, run := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-\d+z`).FindAllStringSubmatch(string(picture), -1) {
		x, _ := strconv.Atoi(run[1])
		n, _ := strconv.Atoi(run[3])
		for i := range n {
			dark[fmt.Sprintf("%d %s", x+i, run[2])] = true
		}
	}
	return func(x, y int) bool { return dark[fmt.Sprintf("%d %d", x+qrQuiet, y+qrQuiet)] }
}

func TestATerminalShowsTheLink(t *testing.T) {
	want := modules(t, qr.L)
	var plain, coloured bytes.Buffer
	if err := drawQR(&plain, someLink, false); err != nil {
		t.Fatal(err)
	}
	if err := drawQR(&coloured, someLink, true); err != nil {
		t.Fatal(err)
	}
	if got := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(coloured.String(), ""); got != plain.String() {
		t.Error("a terminal shows other blocks")
	}
	upper := map[rune]bool{'█': false, '▀': false, '▄': true, ' ': true}
	lower := map[rune]bool{'█': false, '▀': true, '▄': false, ' ': true}
	lines := strings.Split(strings.TrimSuffix(plain.String(), "\n"), "\n")
	same(t, "the text", grid(len(want), func(x, y int) bool {
		at := []rune(lines[(y+2)/2])[x+2]
		if y%2 == 0 {
			return upper[at]
		}
		return lower[at]
	}), want)
}

func TestAPictureOfAnotherKindIsRefusedBeforeAnInviteIsMade(t *testing.T) {
	b := newBox(t)
	if status, _, errOut := b.call(t, "", "invite", "--qr", "a.gif"); status != 2 || !strings.Contains(errOut, ".png or .svg") {
		t.Errorf("status %d: %s", status, errOut)
	}
	file := filepath.Join(t.TempDir(), "a.svg")
	if status, out, errOut := b.call(t, "", "invite", "--qr", file); status != 0 || !strings.Contains(out, "█") {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	if status, out, _ := b.call(t, "", "invite", "ls", "--json"); status != 0 || strings.Count(out, `"id"`) != 1 {
		t.Errorf("the invites are %s", out)
	}
}
