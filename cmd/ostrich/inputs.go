package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ostrich-legs/ostrich/node/control"
	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// inputFlags say where the inputs of a map come from.
type inputFlags struct {
	null      bool
	chunk     sizeFlag
	numbers   string
	files     bool
	filesFrom string
}

func (f *inputFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.null, "null", false, "inputs end with a zero byte, which is not part of them")
	flags.Var(&f.chunk, "chunk", "each input is at most `SIZE` of stdin (K, M, G), cut after a line")
	flags.StringVar(&f.numbers, "range", "", "the inputs are the numbers `A..B`, both included, a line each")
	flags.BoolVar(&f.files, "files", false, "each input is a file: PATHs follow PROG; folders are walked in sorted order")
	flags.StringVar(&f.filesFrom, "files-from", "", "each input is a file; `FILE` names one a line (- for stdin)")
}

// check refuses two kinds of inputs at once.
func (f *inputFlags) check() error {
	n := 0
	for _, given := range []bool{f.null, f.chunk.v > 0, f.numbers != "", f.files, f.filesFrom != ""} {
		if given {
			n++
		}
	}
	if n > 1 {
		return usagef("give one of --null, --chunk, --range, --files and --files-from")
	}
	return nil
}

// source returns the inputs. Those from stdin end when ctx does. paths are the
// arguments after PROG. What can be seen to be wrong before the first input is
// an error.
func (f *inputFlags) source(ctx context.Context, stdin io.Reader, paths []string) (inputs, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if !f.files && len(paths) > 0 {
		return nil, usagef("unexpected argument %q: the program's own arguments follow --, files follow --files", paths[0])
	}
	switch {
	case f.numbers != "":
		first, last, err := parseRange(f.numbers)
		if err != nil {
			return nil, &usageError{err}
		}
		return countUp(first, last), nil
	case f.files:
		if len(paths) == 0 {
			return nil, usagef("--files needs PATHs after PROG")
		}
		for _, p := range paths {
			if _, err := os.Stat(p); err != nil {
				return nil, fmt.Errorf("an input cannot be read: %w", err)
			}
		}
		return walkAll(func(yield func(string, error) bool) {
			for _, p := range paths {
				if !yield(p, nil) {
					return
				}
			}
		}), nil
	case f.filesFrom == "-":
		return walkAll(lines(pump(ctx, stdin))), nil
	case f.filesFrom != "":
		if _, err := os.Stat(f.filesFrom); err != nil {
			return nil, fmt.Errorf("the list of files cannot be read: %w", err)
		}
		return walkAll(linesOf(f.filesFrom)), nil
	}
	in := pump(ctx, stdin)
	switch {
	case f.null:
		return splitNull(in), nil
	case f.chunk.v > 0:
		return splitChunks(in, int64(f.chunk.v)), nil
	}
	return splitLines(in), nil
}

// countUp yields the numbers from first to last, a line each.
func countUp(first, last int64) inputs {
	return func(yield func(control.Input, error) bool) {
		for n := first; ; n++ {
			if !yield(control.Input{Data: append(strconv.AppendInt(nil, n, 10), '\n')}, nil) || n == last {
				return
			}
		}
	}
}

// paths is a sequence of names of files and folders.
type paths = func(yield func(string, error) bool)

// lines yields the lines of r that are not empty, without their ends.
func lines(r io.Reader) paths {
	return func(yield func(string, error) bool) {
		s := bufio.NewScanner(r)
		for s.Scan() {
			if s.Text() != "" && !yield(s.Text(), nil) {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield("", fmt.Errorf("reading the list of files: %w", err))
		}
	}
}

func linesOf(file string) paths {
	return func(yield func(string, error) bool) {
		f, err := os.Open(file)
		if err != nil {
			yield("", fmt.Errorf("reading the list of files: %w", err))
			return
		}
		defer f.Close()
		lines(f)(yield)
	}
}

// errStop ends a walk whose inputs nobody wants any more.
var errStop = errors.New("stop")

// walkAll yields each file, and the regular files below each folder in sorted
// order.
func walkAll(all paths) inputs {
	return func(yield func(control.Input, error) bool) {
		for path, err := range all {
			if err == nil {
				err = walk(path, yield)
			}
			if errors.Is(err, errStop) {
				return
			}
			if err != nil {
				yield(control.Input{}, err)
				return
			}
		}
	}
}

func walk(root string, yield func(control.Input, error) bool) error {
	info, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("an input cannot be read: %w", err)
	}
	give := func(path string, info fs.FileInfo) error {
		in, err := fileInput(path, info.Size())
		if err != nil {
			return err
		}
		if !yield(in, nil) {
			return errStop
		}
		return nil
	}
	switch {
	case info.Mode().IsRegular():
		return give(root, info)
	case !info.IsDir():
		return fmt.Errorf("%s is neither a regular file nor a folder", root)
	}
	// A link to a folder is followed when it is named, not when it is found.
	if resolved, err := filepath.EvalSymlinks(root); err == nil {
		root = resolved
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("an input cannot be read: %w", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("an input cannot be read: %w", err)
		}
		return give(path, info)
	})
}

// fileInput returns a file as an input: a small one in memory.
func fileInput(path string, size int64) (control.Input, error) {
	if size > wire.MaxBlob {
		return control.Input{}, wire.Errorf(wire.Code_CODE_INVALID, "%s has %d bytes: an input has at most %d", path, size, wire.MaxBlob)
	}
	if size > maxInMemory {
		return control.Input{Open: func() (io.ReadCloser, error) { return os.Open(path) }}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return control.Input{}, fmt.Errorf("an input cannot be read: %w", err)
	}
	return control.Input{Data: data}, nil
}
