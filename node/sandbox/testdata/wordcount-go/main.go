// Command wordcount-go does what the built-in program wordcount does, to show
// that Go programs run unchanged.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	counts := map[string]int{}
	for word := range strings.FieldsFuncSeq(string(text), func(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }) {
		counts[word]++
	}
	out := bufio.NewWriter(os.Stdout)
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(out, "%d %s\n", counts[word], word)
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
