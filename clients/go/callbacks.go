package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
)

// maxWaitingCallbacks bounds what waits for a callback that blocks; later news are dropped and counted.
const maxWaitingCallbacks = 1024

// callbacks runs the program's functions one after the other, apart from the session: they may block, panic, and use or
// close the session. It has a goroutine only while there is something to do.
type callbacks struct {
	logger *slog.Logger

	mu      sync.Mutex
	waiting []func()
	running bool
	dropped int
}

func (c *callbacks) add(call func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= maxWaitingCallbacks {
		if c.dropped++; c.dropped == 1 {
			// The session's lock is held here, and the logger may use the session.
			go report(c.logger, slog.LevelWarn, "gateway: a callback blocks; news for it are dropped", "waiting", len(c.waiting))
		}
		return
	}
	c.waiting = append(c.waiting, call)
	if !c.running {
		c.running = true
		go c.run()
	}
}

func (c *callbacks) run() {
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.running = false
			c.mu.Unlock()
			return
		}
		next := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		if err := protect(func() error { next(); return nil }); err != nil {
			report(c.logger, slog.LevelError, "gateway: a callback failed", "error", err, "stack", stackOf(err))
		}
	}
}

// report tells the program's logger, which may panic as well: then there is nobody else to tell.
func report(logger *slog.Logger, level slog.Level, message string, facts ...any) {
	_ = protect(func() error { logger.Log(context.Background(), level, message, facts...); return nil })
}

// protect runs the program's own code: a panic becomes an error.
func protect(call func() error) (err error) {
	finished := false
	defer func() {
		if problem := recover(); problem != nil {
			err = &panicError{problem, debug.Stack()}
		} else if !finished {
			// runtime.Goexit, as testing's FailNow calls it: the goroutine ends, what it was to answer is answered.
			err = errGoexit
		}
	}()
	err = call()
	finished = true
	return err
}

var errGoexit = errors.New("the function ended its goroutine")

// panicError is a panic of the program's own code.
type panicError struct {
	problem any
	stack   []byte
}

func (e *panicError) Error() string { return fmt.Sprint(e.problem) }

// stackOf is where the program's code panicked, "" if it did not.
func stackOf(err error) string {
	var panicked *panicError
	if errors.As(err, &panicked) {
		return string(panicked.stack)
	}
	return ""
}

// within runs the program's own code and stops waiting when ctx ends, even if the code does not. Its goroutine then
// ends when the code does.
func within[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		got := answer{err: errGoexit}
		defer func() { answered <- got }()
		got.err = protect(func() error {
			var err error
			got.value, err = call(ctx)
			return err
		})
	}()
	select {
	case got := <-answered:
		return got.value, got.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
