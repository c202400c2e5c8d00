package gateway

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Turn is one response and everything until its end. It has one reader at a time, who either ranges over Events
// or takes the Final result; Final after some Events takes what is left into account.
type Turn struct {
	session *Session
	lane    *Lane
	id      string

	// Guarded by session.mu.
	start           *gatewayv1.StartTurn // kept until the gateway is known to have it
	order           uint64
	sent            bool
	delivered       bool // the gateway has named it among the turns that run
	seen            bool
	cancelRequested bool
	answers         bool // it brings results for calls that a tool loop has left open
	orphan          bool // its tool loop has given it up, and it goes on

	// bound is done when the turn's tool loop is out of time, or was cancelled; nil outside of loops.
	bound context.Context

	reading atomic.Bool
	wake    chan struct{}

	mu      sync.Mutex
	queue   []queuedEvent
	head    int
	bytes   int64
	waiting time.Time // since when a reader waits for an event; zero: none does
	wasRead bool
	folded  bool // events went into the result unread
	closed  bool
	over    bool   // nothing more comes
	err     *Error // why it is over without a last event
	ended   bool   // the result has the end
	failure *Error
	result  accumulator
}

type queuedEvent struct {
	event Event
	bytes int64
}

// ID is the turn's id.
func (t *Turn) ID() string { return t.id }

// Lane is the turn's lane.
func (t *Turn) Lane() *Lane { return t.lane }

// Events ranges over the turn's events, up to the one with an Outcome. An error ends the range: the turn's *Error,
// after its last event, or that of ctx, which leaves the turn as it is. A range that was left can be gone on with.
//
// Who reads so slowly that other turns wait gets the reason READER_TOO_SLOW: single events were dropped, but Final
// has the whole result.
func (t *Turn) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if !t.reading.CompareAndSwap(false, true) {
			yield(Event{}, ErrTurnBusy)
			return
		}
		defer t.reading.Store(false)
		for {
			event, more, err := t.read(ctx, true)
			if err != nil {
				yield(Event{}, err)
				return
			}
			if !more || !yield(event, nil) {
				return
			}
		}
	}
}

// Final reads the turn to its end and returns its result. With an error the result holds what there is. An
// incomplete response is no error: see Result.Outcome. When ctx ends first, the error has reason WAIT_TIMEOUT or is
// that of ctx, and nothing is lost.
func (t *Turn) Final(ctx context.Context) (*Result, error) {
	if !t.reading.CompareAndSwap(false, true) {
		return nil, ErrTurnBusy
	}
	defer t.reading.Store(false)
	for {
		_, more, err := t.read(ctx, false)
		if err != nil || !more {
			return t.SoFar(), err
		}
	}
}

// SoFar is the result as far as it was read.
func (t *Turn) SoFar() *Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.result.result(t.lane.id, t.id)
}

// Steer adds user input to the running turn; it waits, as long as ctx allows, while too much is queued. Acceptance
// (response.steer.accepted) and refusal arrive as events of the turn. A steer that is on its way when the stream
// breaks may be lost; it is never sent twice.
func (t *Turn) Steer(ctx context.Context, input []*Item) error {
	return t.session.steer(ctx, t.lane.id, t.id, input)
}

// Cancel gives the turn up. Its last event, Cancelled, arrives at once. Cancelling a turn that has ended does
// nothing.
func (t *Turn) Cancel() error { return t.session.cancelTurn(t) }

// Close stops listening: further events of the turn are dropped. It does not cancel the turn. Closing a turn that
// was read to its end does nothing.
func (t *Turn) Close() {
	t.mu.Lock()
	if !t.ended {
		t.closed, t.ended = true, true
		t.failure = inferred(codes.Canceled, ReasonTurnClosed, "the turn was closed").forTurn(t, ReplayUnknown)
	}
	dropped := t.clear()
	t.mu.Unlock()
	t.session.release(dropped)
	t.session.forget(t)
	t.signal()
}

// read returns the next event; false after the last one of a turn that went well.
func (t *Turn) read(ctx context.Context, wantEvents bool) (Event, bool, error) {
	for {
		t.mu.Lock()
		t.wasRead = true
		switch {
		case t.head < len(t.queue):
			queued := t.pop()
			t.take(queued.event)
			t.waiting = time.Time{}
			ended := t.ended
			t.mu.Unlock()
			t.session.release(queued.bytes)
			if ended {
				t.session.forget(t)
			}
			return queued.event, true, nil
		case t.folded && wantEvents && !t.closed:
			t.mu.Unlock()
			slow := inferred(codes.ResourceExhausted, ReasonReaderTooSlow,
				"events were dropped because nobody read them while other turns waited; the result is complete").
				forTurn(t, ReplayUnsafe)
			slow.Result = t.SoFar()
			return Event{}, false, slow
		case t.over && !t.ended:
			t.ended, t.failure = true, t.err
			if t.failure != nil {
				t.failure.Result = t.result.result(t.lane.id, t.id)
			}
			fallthrough
		case t.ended:
			failure := t.failure
			t.mu.Unlock()
			if failure != nil {
				return Event{}, false, failure
			}
			return Event{}, false, nil
		}
		if t.waiting.IsZero() {
			t.waiting = time.Now()
		}
		t.mu.Unlock()
		var over <-chan struct{}
		if t.bound != nil {
			over = t.bound.Done()
		}
		var ended error
		select {
		case <-t.wake:
			continue
		case <-ctx.Done():
			ended = waitEnded(ctx, t)
		case <-over:
			ended = context.Cause(t.bound)
		}
		t.mu.Lock()
		t.waiting = time.Time{}
		t.mu.Unlock()
		return Event{}, false, ended
	}
}

// waitEnded is the error of a wait that ctx ended.
func waitEnded(ctx context.Context, t *Turn) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	late := inferred(codes.DeadlineExceeded, ReasonWaitTimeout, "the wait ended; the turn goes on").forTurn(t, ReplayUnknown)
	late.cause = ctx.Err()
	return late
}

func (t *Turn) pop() queuedEvent {
	queued := t.queue[t.head]
	t.queue[t.head] = queuedEvent{}
	t.head++
	t.bytes -= queued.bytes
	if t.head == len(t.queue) {
		t.queue, t.head = t.queue[:0], 0
	}
	return queued
}

func (t *Turn) clear() (bytes int64) {
	bytes = t.bytes
	t.queue, t.head, t.bytes = nil, 0, 0
	return bytes
}

func (t *Turn) take(event Event) {
	t.result.add(event.pb)
	switch event.Outcome() {
	case Running:
	case Completed, Incomplete:
		t.ended = true
	default:
		t.ended = true
		t.failure = event.Failure()
		if t.failure == nil {
			t.failure = inferred(codes.Unknown, ReasonProtocol, "the turn failed without a reason").forTurn(t, ReplayUnknown)
		}
		t.failure.Result = t.result.result(t.lane.id, t.id)
	}
}

// push hands an event to the reader and returns how many bytes now wait for it. Called by the session's reader only.
func (t *Turn) push(queued queuedEvent, last bool) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last {
		t.over = true
	}
	switch {
	case t.closed:
		// Nobody reads it; an abandoned turn still tells what it calls.
		if t.orphan {
			t.result.add(queued.event.pb)
		}
		return 0
	case t.folded:
		t.take(queued.event)
		return 0
	default:
		t.queue = append(t.queue, queued)
		t.bytes += queued.bytes
		return queued.bytes
	}
}

// fold puts what waits, and all that still comes, into the result: the events are gone, the result stays whole.
func (t *Turn) fold() (freed int64) {
	t.mu.Lock()
	for t.head < len(t.queue) {
		queued := t.pop()
		freed += queued.bytes
		t.take(queued.event)
	}
	t.queue = nil
	t.folded = true
	t.mu.Unlock()
	t.signal()
	return freed
}

// dismiss closes the turn but keeps what came in its result.
func (t *Turn) dismiss() (freed int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, queued := range t.queue[t.head:] {
		t.result.add(queued.event.pb)
	}
	if !t.ended {
		t.closed, t.ended = true, true
		t.failure = inferred(codes.Canceled, ReasonTurnClosed, "its tool loop has given the turn up").forTurn(t, ReplayUnknown)
	}
	return t.clear()
}

// load says how many bytes wait, whether a reader waits for more, and whether there ever was one.
func (t *Turn) load() (bytes int64, waiting, wasRead bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting = !t.waiting.IsZero() && t.head == len(t.queue) && time.Since(t.waiting) >= stallPatience
	return t.bytes, waiting, t.wasRead
}

// fail ends the turn without a last event; what is queued can still be read.
func (t *Turn) fail(err *Error) {
	t.mu.Lock()
	if !t.over {
		t.over, t.err = true, err
	}
	t.mu.Unlock()
	t.signal()
}

func (t *Turn) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}
