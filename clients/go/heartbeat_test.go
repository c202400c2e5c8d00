package gateway

import (
	"context"
	"testing"
	"time"
)

// quietStream is a stream over which nothing comes.
type quietStream struct {
	connection
	ctx context.Context
}

func (q quietStream) Context() context.Context { return q.ctx }

// beating starts the heartbeat of a stream whose reader waits for a message, or not.
func beating(t *testing.T, reading bool) (*Session, *stream) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := &Session{outbox: outbox{ready: make(chan struct{}, 1)}}
	current := &stream{connection: quietStream{ctx: ctx}, cancel: cancel}
	current.pulse.began = time.Now()
	current.pulse.waits(reading)
	go s.beat(current, time.Millisecond)
	return s, current
}

func TestWhatIsNotReadCannotBeHeard(t *testing.T) {
	s, current := beating(t, false)
	for range 12 {
		<-s.outbox.ready
		s.mu.Lock()
		_, some := s.outbox.take()
		s.mu.Unlock()
		if !some || current.Context().Err() != nil {
			t.Fatalf("a beat %v, silent %v", some, current.pulse.silent.Load())
		}
	}
}

func TestWhoHearsNothingForThreeIntervalsEndsTheStream(t *testing.T) {
	_, current := beating(t, true)
	<-current.Context().Done()
	if !current.pulse.silent.Load() {
		t.Fatal("it ended for another reason")
	}
}
