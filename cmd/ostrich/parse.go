package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const day = 24 * time.Hour

// parseDuration reads a duration as Go writes them, with days before the rest:
// "7d", "1d12h", "90s".
func parseDuration(s string) (time.Duration, error) {
	var days time.Duration
	rest := s
	if n, after, found := strings.Cut(s, "d"); found {
		v, err := strconv.ParseUint(n, 10, 32)
		if err != nil || v > uint64(math.MaxInt64/day) {
			return 0, fmt.Errorf("%q is not a duration such as 90s, 24h or 7d", s)
		}
		days, rest = time.Duration(v)*day, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || days > 0 && d < 0 || days+d < days && d > 0 {
		return 0, fmt.Errorf("%q is not a duration such as 90s, 24h or 7d", s)
	}
	return days + d, nil
}

// parseSize reads a number of bytes, with K, M or G for powers of 1024.
func parseSize(s string) (uint64, error) {
	digits, unit := s, uint64(1)
	if s != "" {
		switch s[len(s)-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			digits = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size such as 4096, 64K, 16M or 1G", s)
	}
	return n * unit, nil
}

// parseMiB reads a number of MiB; with K, M or G it is a size, which must be
// whole MiB.
func parseMiB(s string) (uint64, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return n, nil
	}
	n, err := parseSize(s)
	if err != nil || n%(1<<20) != 0 || n>>20 > math.MaxUint32 {
		return 0, fmt.Errorf("%q is not a number of MiB such as 64, 512M or 1G", s)
	}
	return n >> 20, nil
}

// parseRange reads "A..B", both included.
func parseRange(s string) (first, last int64, err error) {
	a, b, found := strings.Cut(s, "..")
	if !found {
		return 0, 0, fmt.Errorf("%q is not a range such as 1..100", s)
	}
	first, erra := strconv.ParseInt(a, 10, 64)
	last, errb := strconv.ParseInt(b, 10, 64)
	switch {
	case erra != nil || errb != nil:
		return 0, 0, fmt.Errorf("%q is not a range such as 1..100", s)
	case first > last:
		return 0, 0, fmt.Errorf("the range %q ends before it begins", s)
	case uint64(last)-uint64(first) >= wire.MaxTasks:
		return 0, 0, fmt.Errorf("the range %q has more than %d numbers", s, wire.MaxTasks)
	}
	return first, last, nil
}

// parsePair reads "K=V"; what names the flag's kind in the error.
func parsePair(s, what string) (key, value string, err error) {
	key, value, found := strings.Cut(s, "=")
	if !found || key == "" {
		return "", "", fmt.Errorf("%q is not %s", s, what)
	}
	return key, value, nil
}

// durationFlag, mibFlag and sizeFlag are flags of these kinds.
type (
	durationFlag struct{ v time.Duration }
	mibFlag      struct{ v uint64 }
	sizeFlag     struct{ v uint64 }
)

// Set, String and Type make a flag of each.
func (f *durationFlag) Set(s string) error {
	v, err := parseDuration(s)
	if err == nil && v <= 0 {
		err = fmt.Errorf("a duration must be above 0")
	}
	f.v = v
	return err
}

func (f *durationFlag) String() string {
	if f.v == 0 {
		return ""
	}
	if f.v%day == 0 {
		return strconv.Itoa(int(f.v/day)) + "d"
	}
	return f.v.String()
}

func (f *durationFlag) Type() string { return "D" }

func (f *mibFlag) Set(s string) error {
	v, err := parseMiB(s)
	if err == nil && v == 0 {
		err = fmt.Errorf("at least 1 MiB")
	}
	f.v = v
	return err
}

func (f *mibFlag) String() string { return strconv.FormatUint(f.v, 10) }
func (f *mibFlag) Type() string   { return "MiB" }

func (f *sizeFlag) Set(s string) error {
	v, err := parseSize(s)
	if err == nil && (v == 0 || v > wire.MaxBlob) {
		err = fmt.Errorf("1 to 1G")
	}
	f.v = v
	return err
}

func (f *sizeFlag) String() string {
	if f.v == 0 {
		return ""
	}
	return strconv.FormatUint(f.v, 10)
}
func (f *sizeFlag) Type() string { return "SIZE" }
