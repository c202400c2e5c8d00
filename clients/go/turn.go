package gateway

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"

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
	seen            bool
	cancelRequested bool

	mu       sync.Mutex
	queue    []queuedEvent
	over     bool
	err      *Error // why it is over without a last event
	detached bool
	wake     chan struct{}

	reading atomic.Bool
	// The reader's own.
	batch   []queuedEvent
	next    int
	result  accumulator
	failure *Error
	ended   bool
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
func (t *Turn) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if !t.reading.CompareAndSwap(false, true) {
			yield(Event{}, ErrTurnBusy)
			return
		}
		defer t.reading.Store(false)
		for {
			event, more, err := t.read(ctx)
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

// Final reads the turn to its end and returns its result. With an *Error the result holds what there is. An
// incomplete response is no error: see Result.Outcome.
func (t *Turn) Final(ctx context.Context) (*Result, error) {
	if !t.reading.CompareAndSwap(false, true) {
		return nil, ErrTurnBusy
	}
	defer t.reading.Store(false)
	for {
		_, more, err := t.read(ctx)
		if err != nil || !more {
			return t.result.result(t), err
		}
	}
}

// Steer adds user input to the running turn. Acceptance (response.steer.accepted) and refusal arrive as events of
// the turn. A steer that is on its way when the stream breaks may be lost; it is never sent twice.
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
	t.detached = true
	dropped := t.queue
	t.queue = nil
	if !t.over {
		t.err = inferred(1, "TURN_CLOSED", "the turn was closed").forTurn(t, ReplayUnknown)
	}
	t.mu.Unlock()
	t.session.release(bytesOf(dropped))
	t.signal()
}

// read returns the next event; false after the last one of a turn that went well.
func (t *Turn) read(ctx context.Context) (Event, bool, error) {
	for {
		if t.next < len(t.batch) {
			queued := t.batch[t.next]
			t.batch[t.next] = queuedEvent{}
			t.next++
			t.session.release(queued.bytes)
			t.take(queued.event)
			return queued.event, true, nil
		}
		if t.ended {
			if t.failure != nil {
				return Event{}, false, t.failure
			}
			return Event{}, false, nil
		}
		t.mu.Lock()
		t.batch, t.queue, t.next = t.queue, t.batch[:0], 0
		over, err := t.over || t.detached, t.err
		t.mu.Unlock()
		if len(t.batch) > 0 {
			continue
		}
		if over {
			t.ended, t.failure = true, err
			continue
		}
		select {
		case <-t.wake:
		case <-ctx.Done():
			return Event{}, false, ctx.Err()
		}
	}
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
			t.failure = inferred(2, ReasonProtocol, "the turn failed without a reason").forTurn(t, ReplayUnknown)
		}
	}
}

// push hands an event to the reader; false if nobody listens. Called by the session's reader only.
func (t *Turn) push(queued queuedEvent, last bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last {
		t.over = true
	}
	if t.detached {
		return false
	}
	t.queue = append(t.queue, queued)
	return true
}

// fail ends the turn without a last event.
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

func bytesOf(events []queuedEvent) (sum int64) {
	for _, queued := range events {
		sum += queued.bytes
	}
	return sum
}
