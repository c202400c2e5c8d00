package gateway

import (
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// silentIntervals without a message, and nothing is expected any more.
const silentIntervals = 3

// pulse is what a stream's reader tells its heartbeat.
type pulse struct {
	began time.Time
	// heard is when the reader last took a message or began to wait for one, since began.
	heard atomic.Int64
	// reading: the reader waits for a message. What is not read cannot be heard.
	reading atomic.Bool
	silent  atomic.Bool
}

func (p *pulse) waits(reading bool) {
	p.heard.Store(int64(time.Since(p.began)))
	p.reading.Store(reading)
}

// beat says to everything on the way that the client is there, and ends the stream when nothing comes back.
func (s *Session) beat(current *stream, interval time.Duration) {
	pulse := &current.pulse
	sendAt := interval
	for {
		silentAt := time.Duration(pulse.heard.Load()) + silentIntervals*interval
		due := min(sendAt, silentAt)
		timer := time.NewTimer(due - time.Since(pulse.began))
		select {
		case <-timer.C:
		case <-current.Context().Done():
			timer.Stop()
			return
		}
		now := time.Since(pulse.began)
		// A process that stood still has heard nothing because of itself.
		if !pulse.reading.Load() || now-due > interval {
			pulse.heard.Store(int64(now))
		}
		if now >= time.Duration(pulse.heard.Load())+silentIntervals*interval {
			pulse.silent.Store(true)
			current.cancel()
			return
		}
		if now >= sendAt {
			sendAt = now + interval
			s.mu.Lock()
			if s.phase != phaseClosing {
				s.outbox.beat()
			}
			s.mu.Unlock()
		}
	}
}

// heartbeatInterval is what the gateway agreed to; 0: none.
func (s *Session) heartbeatInterval() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, s.opened.GetHeartbeatInterval().AsDuration())
}

func silence(interval time.Duration) *Error {
	return inferred(codes.Unavailable, ReasonStreamLost,
		fmt.Sprintf("nothing was heard for three heartbeats of %v", interval))
}
