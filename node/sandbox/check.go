package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/ostrich-legs/ostrich/p2p/wire"
)

// Check reports whether the file is a WASI preview 1 command module that Run
// can run: nil, or CODE_INVALID with a sentence that says what it is instead.
// It takes no slot. Other errors are those of Run.
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
	for {
		c, warm, err := p.take(wire.Hash{})
		if err != nil {
			return err
		}
		start := time.Now()
		text, err := p.check(ctx, c, path)
		switch {
		case err == nil && text == "":
			return nil
		case err == nil:
			return wire.Errorf(wire.Code_CODE_INVALID, "this is not a program that Ostrich can run: %s", text)
		case ctx.Err() != nil:
			return ctx.Err()
		case p.isClosed():
			return errClosed()
		case time.Since(start) >= p.opts.compileTimeout:
			return wire.Errorf(wire.Code_CODE_INVALID, "this is not a program that Ostrich can run: compiling it took longer than %v", p.opts.compileTimeout)
		case !warm && c.starved():
			return wire.Errorf(wire.Code_CODE_INVALID, "this is not a program that Ostrich can run: compiling it takes too much memory")
		case !warm:
			return wire.Errorf(wire.Code_CODE_INTERNAL, "the check of %s broke: %v", path, err)
		}
		// An idle child had died unnoticed: the next one is another.
	}
}

// check has c check a module. If there is an error, c is gone.
func (p *Pool) check(ctx context.Context, c *child, path string) (string, error) {
	uncancel := context.AfterFunc(ctx, c.kill)
	late := time.AfterFunc(p.opts.compileTimeout, c.kill)
	_, err := c.in.Write(appendFrame(nil, frameCheck, path))
	var f frame
	if err == nil {
		f, err = readFrame(c.r, maxResultFrame)
	}
	if err == nil && f.kind != frameChecked {
		err = errFrame
	}
	kept := uncancel()
	kept = late.Stop() && kept
	if err != nil {
		err = fmt.Errorf("%w: %s", err, c.obituary())
	}
	if err == nil && kept {
		p.put(c)
	} else {
		c.end()
	}
	return string(f.body), err
}
