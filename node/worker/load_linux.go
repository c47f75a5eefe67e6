package worker

import (
	"os"
	"strconv"
	"strings"
)

// loadAverage returns the mean number of runnable tasks of the last minute; 0
// if it cannot be known.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}
