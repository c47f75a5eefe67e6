package state

import (
	"strings"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

const (
	hourMS = 60 * 60 * 1000
	dayMS  = 24 * hourMS
)

// checkSpec accepts what a submitter may ask for.
func checkSpec(spec *wire.JobSpec) error {
	if spec == nil {
		return invalid("a job without a spec")
	}
	if err := checkProgram(spec.GetProgram()); err != nil {
		return err
	}
	if err := checkArgs(spec); err != nil {
		return err
	}
	switch {
	case spec.GetRetries() > wire.MaxRetries:
		return invalid("%d retries: at most %d are allowed", spec.GetRetries(), wire.MaxRetries)
	case spec.GetTimeoutMs() < 0 || spec.GetTimeoutMs() > wire.MaxTimeout.Milliseconds():
		return invalid("a time-out of %d ms: at most %d are allowed", spec.GetTimeoutMs(), wire.MaxTimeout.Milliseconds())
	case spec.GetMemoryMib() > wire.MaxMemoryMiB:
		return invalid("%d MiB of memory for a task: at most %d are allowed", spec.GetMemoryMib(), wire.MaxMemoryMiB)
	case spec.GetMaxOutputBytes() > wire.MaxBlob:
		return invalid("an output of up to %d bytes: at most %d are allowed", spec.GetMaxOutputBytes(), wire.MaxBlob)
	case spec.GetKeepMs() < 0 || spec.GetKeepMs() > wire.MaxKeep.Milliseconds():
		return invalid("keeping a job for %d ms: at most %d are allowed", spec.GetKeepMs(), wire.MaxKeep.Milliseconds())
	case spec.GetRequire().GetNative() && spec.GetRequire().GetBrowser():
		return invalid("no device is both native and a browser")
	}
	if err := checkLabels(spec.GetRequire().GetLabels()); err != nil {
		return err
	}
	return checkSize("a job's spec", spec, maxSpecSize)
}

func checkProgram(p *wire.Program) error {
	if err := checkText("the name of a program", p.GetName(), 1, 255); err != nil {
		return err
	}
	if strings.ContainsRune(p.GetName(), '/') {
		return invalid("the name of a program must be a base name, without '/'")
	}
	if err := checkHash("the hash of a program", p.GetBlob().GetHash()); err != nil {
		return err
	}
	return checkBlob("a program", p.GetBlob(), wire.MaxProgram)
}

// checkBlob accepts a blob of 1 to limit bytes with as many pages as it needs.
func checkBlob(what string, b *wire.Blob, limit uint64) error {
	if b.GetSize() < 1 || b.GetSize() > limit {
		return invalid("%s of %d bytes: 1 to %d are allowed", what, b.GetSize(), limit)
	}
	if need := (b.GetSize() + wire.PageSize - 1) / wire.PageSize; uint64(len(b.GetPages())) != need {
		return invalid("%s of %d bytes has %d pages, not %d", what, b.GetSize(), need, len(b.GetPages()))
	}
	return checkHashes("a page of "+what, b.GetPages())
}

func checkArgs(spec *wire.JobSpec) error {
	size := 0
	for _, arg := range spec.GetArgs() {
		if err := checkArg("an argument", arg); err != nil {
			return err
		}
		size += len(arg) + 1
	}
	for _, variable := range spec.GetEnv() {
		if err := checkArg("an environment variable", variable); err != nil {
			return err
		}
		if strings.IndexByte(variable, '=') < 1 {
			return invalid("an environment variable must be K=V")
		}
		size += len(variable) + 1
	}
	if size > wire.MaxArgs {
		return invalid("%d bytes of arguments and environment: at most %d are allowed", size, wire.MaxArgs)
	}
	return nil
}

// checkSegments accepts a run of inputs whose indexes follow one another, and
// returns how many there are. Where the run begins is for the caller to check.
func checkSegments(segments []*wire.Segment) (uint32, error) {
	next := uint64(0)
	for i, seg := range segments {
		if err := checkSegment(seg); err != nil {
			return 0, err
		}
		if i > 0 && uint64(seg.GetFirst()) != next {
			return 0, invalid("a segment begins at input %d where %d should follow", seg.GetFirst(), next)
		}
		next = uint64(seg.GetFirst()) + uint64(seg.GetCount())
		if next > wire.MaxTasks {
			return 0, wire.Errorf(wire.Code_CODE_EXHAUSTED, "%d inputs: a job has at most %d", next, wire.MaxTasks)
		}
	}
	if len(segments) == 0 {
		return 0, nil
	}
	return uint32(next) - segments[0].GetFirst(), nil
}

// checkSegment accepts one segment of inputs: exactly one of inline, page and
// blob, and a count and a size that fit it.
func checkSegment(seg *wire.Segment) error {
	if err := checkCount(seg); err != nil {
		return err
	}
	if err := checkSize("a segment", seg, maxSegmentSize); err != nil {
		return err
	}
	inline, page, blob := len(seg.GetInline()) > 0, len(seg.GetPage()) > 0, seg.GetBlob() != nil
	switch {
	case inline && !page && !blob:
		size, err := checkInline(seg)
		if err == nil && size != seg.GetBytes() {
			err = invalid("an inline segment says %d bytes and has %d", seg.GetBytes(), size)
		}
		return err
	case page && !inline && !blob:
		if seg.GetBytes() > wire.PageSize {
			return invalid("a page cannot hold %d bytes", seg.GetBytes())
		}
		return checkHash("the page of a segment", seg.GetPage())
	case blob && !inline && !page:
		if seg.GetCount() != 1 || seg.GetBytes() != seg.GetBlob().GetSize() || len(seg.GetBlob().GetHash()) != 0 {
			return invalid("a large input must be a segment of its own, with the size of its blob")
		}
		return checkBlob("an input", seg.GetBlob(), wire.MaxBlob)
	}
	return invalid("a segment must have exactly one of inline bytes, a page and a blob")
}

func checkCount(seg *wire.Segment) error {
	if n := seg.GetCount(); n < 1 || n > wire.MaxPackItems {
		return invalid("a segment of %d items: 1 to %d are allowed", n, wire.MaxPackItems)
	}
	return nil
}

// checkInline accepts an inline pack of as many items as the segment says, and
// returns their bytes in sum.
func checkInline(seg *wire.Segment) (uint64, error) {
	if len(seg.GetInline()) > wire.MaxInline {
		return 0, invalid("%d bytes inline: at most %d are allowed", len(seg.GetInline()), wire.MaxInline)
	}
	items, err := wire.DecodePack(seg.GetInline())
	if err != nil {
		return 0, err
	}
	if uint64(len(items)) != uint64(seg.GetCount()) {
		return 0, invalid("an inline pack of %d items where %d are said", len(items), seg.GetCount())
	}
	size := uint64(0)
	for _, item := range items {
		size += uint64(len(item))
	}
	return size, nil
}
