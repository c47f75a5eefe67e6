package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Check reports whether the file is a WASI preview 1 command module that Run
// can run: nil, or CODE_INVALID with a sentence that says what it is instead:
// its own bytes are the reason. It takes no slot. Other errors are those of Run,
// and CODE_INTERNAL when this device cannot tell.
func (p *Pool) Check(ctx context.Context, path string) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.users.Done()
	select {
	case p.checks <- struct{}{}:
		defer func() { <-p.checks }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.well(); err != nil {
		return err
	}
	for fresh := false; ; {
		c, warm, err := p.take(wire.Hash{}, fresh)
		if err != nil {
			if unwell := p.prove(ctx, err.Error()); unwell != nil {
				return unwell
			}
			continue
		}
		used, start := c.used, time.Now()
		answer, err := p.ask(ctx, c, path)
		said := (*spent)(nil)
		switch {
		case err == nil:
			return answer.err(path)
		case ctx.Err() != nil:
			return ctx.Err()
		case p.isClosed():
			return errClosed()
		case time.Since(start) >= p.compileLimit(path):
			return unfit(fmt.Sprintf("compiling it took longer than %v", p.compileLimit(path)))
		case errors.As(err, &said) && said.text == "":
			// It has done its part.
		case warm || used:
			fresh = true // it may have been the child
		default:
			return p.uncheckable(ctx, c, path, err)
		}
	}
}

// compileLimit returns how long the program may take to compile.
func (p *Pool) compileLimit(path string) time.Duration {
	info, err := os.Stat(path)
	if err != nil {
		return p.opts.compileTimeout
	}
	units := time.Duration(min(info.Size(), wire.MaxProgram) / compileUnit)
	return p.opts.compileTimeout * (1 + units)
}

// uncheckable says why a new child broke with a check.
func (p *Pool) uncheckable(ctx context.Context, c *child, path string, cause error) error {
	if err := p.prove(ctx, cause.Error()); err != nil {
		return err
	}
	said := (*spent)(nil)
	switch {
	case c.starved() || noMemory(cause.Error()):
		return wire.Errorf(wire.Code_CODE_INTERNAL, "this device cannot check the program: compiling it takes more memory than its sandbox may have")
	case errors.As(cause, &said):
		return unfit(said.text)
	}
	return wire.Errorf(wire.Code_CODE_INTERNAL, "the check of %s broke: %v", path, cause)
}

func unfit(text string) error {
	return wire.Errorf(wire.Code_CODE_INVALID, "this is not a program that Ostrich can run: %s", text)
}

// checked is the answer to a check.
type checked struct{ verdict, text string }

func (a checked) err(path string) error {
	switch a.verdict {
	case checkFit:
		return nil
	case checkUnfit:
		return unfit(a.text)
	}
	return wire.Errorf(wire.Code_CODE_INTERNAL, "the program %s cannot be read: %s", path, a.text)
}

// ask has c check a module, or run the tiny program if path is "". If there is
// an error, c is gone.
func (p *Pool) ask(ctx context.Context, c *child, path string) (checked, error) {
	uncancel := context.AfterFunc(ctx, c.kill)
	late := time.AfterFunc(p.compileLimit(path), c.kill)
	_, err := c.in.Write(appendFrame(nil, frameCheck, path))
	var f frame
	if err == nil {
		f, err = readFrame(c.r, maxResultFrame)
	}
	if err == nil && f.kind == frameSpent {
		err = &spent{string(f.body)}
	} else if err == nil && (f.kind != frameChecked || len(f.body) < 2) {
		err = errFrame
	}
	kept := uncancel()
	kept = late.Stop() && kept
	if said := (*spent)(nil); err != nil && !errors.As(err, &said) {
		err = fmt.Errorf("%w: %s", err, c.obituary())
	}
	if err != nil {
		c.end()
		return checked{}, err
	}
	c.used = true
	if kept && path != "" && string(f.body[:1]) != conditionWorn {
		p.put(c)
	} else {
		c.end()
	}
	return checked{string(f.body[1:2]), string(f.body[2:])}, nil
}
