package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// schemaRevision is the newest `since_revision` of the generated code: what is newer comes as raw JSON.
const schemaRevision = 3

// Session is one stream to the gateway with its own upstream connection. It outlives its stream: a lost one is
// resumed by itself.
type Session struct {
	client    *Client
	opts      sessionOptions
	ctx       context.Context
	cancel    context.CancelFunc
	done      chan struct{}
	callbacks callbacks

	mu        sync.Mutex
	phase     sessionPhase
	closing   *Error // why the program ended the session
	err       *Error
	opened    *gatewayv1.Opened
	token     string
	lanes     map[string]*laneState
	turns     map[string]*Turn   // without an outcome
	unread    map[*Turn]struct{} // that have ended, with events that nobody has read
	started   uint64
	resumes   int
	connected bool
	drainedBy time.Time
	outbox    outbox
	lastSeq   uint64
	// lastCommit is how far the gateway's record of the session reaches, as far as it was heard.
	lastCommit uint64
	// moving: the gateway goes down, and another one will go on with the session. Starts are held until then.
	moving bool
	// affinity lets balancers lead all streams of the session to the same place.
	affinity string

	// The reader's own.
	unackedEvents int
	unackedBytes  int64
	fullSince     time.Time // since when the buffer was never below half of its bound

	startsWait  atomic.Int64 // calls of Start and Steer that wait
	buffered    atomic.Int64
	maxBuffered atomic.Int64 // the highest that buffered has been
	room        chan struct{}
}

type sessionPhase int

const (
	phaseOpen     sessionPhase = iota
	phaseDraining              // the gateway goes down: running turns may finish
	phaseClosing               // the program ends it
	phaseOver
)

// Limits are what the gateway granted. Sizes are bytes; 0 means no limit of the gateway's own.
type Limits struct {
	MaxMessageBytes, MaxFrameBytes, MaxBufferedBytes, MaxResumeBytes uint64
	MaxLanes, MaxTurnsInFlight, MaxQueuedTurnsPerLane                int
	// ResumeGrace is how long the gateway keeps the session after a lost stream.
	ResumeGrace time.Duration
}

// Stats are numbers about a session, for logs and metrics.
type Stats struct {
	// Resumes counts how often a lost or old stream was replaced.
	Resumes int
	// BufferedBytes wait for their readers now; MaxBufferedBytes is the most that ever did.
	BufferedBytes, MaxBufferedBytes int64
	// QueuedBytes wait to be sent.
	QueuedBytes int64
	// RunningTurns have no outcome yet.
	RunningTurns int
	// LastSeq is the number of the newest event.
	LastSeq uint64
	// Connected says whether there is a stream now.
	Connected bool
}

// ID names the session in logs and traces. It is no secret.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened.GetSessionId()
}

// Limits are what the gateway granted.
func (s *Session) Limits() Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.opened.GetLimits()
	return Limits{
		MaxMessageBytes:       l.GetMaxMessageBytes(),
		MaxFrameBytes:         l.GetMaxFrameBytes(),
		MaxBufferedBytes:      l.GetMaxBufferedBytes(),
		MaxResumeBytes:        l.GetMaxResumeBytes(),
		MaxLanes:              int(l.GetMaxLanes()),
		MaxTurnsInFlight:      int(l.GetMaxTurnsInFlight()),
		MaxQueuedTurnsPerLane: int(l.GetMaxQueuedTurnsPerLane()),
		ResumeGrace:           s.opened.GetResumeGrace().AsDuration(),
	}
}

// Stats are numbers about the session.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Resumes:          s.resumes,
		BufferedBytes:    s.buffered.Load(),
		MaxBufferedBytes: s.maxBuffered.Load(),
		QueuedBytes:      s.outbox.bytes,
		RunningTurns:     len(s.turns),
		LastSeq:          s.lastSeq,
		Connected:        s.connected,
	}
}

// Done is closed when the session is over.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session is over: nil while it lives and after Close.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return s.err
}

// Lane returns the lane of this name; "" is the default lane. Names are up to 256 of A-Z a-z 0-9 _ . -
func (s *Session) Lane(id string) *Lane { return &Lane{session: s, id: id} }

// Start starts a turn on the default lane. See [Lane.Start].
func (s *Session) Start(ctx context.Context, request Request) (*Turn, error) {
	return s.Lane("").Start(ctx, request)
}

// Close cancels what still runs, ends the stream and waits until nothing of the session is left, running callbacks
// apart: no goroutine, and no reader of a turn that waits. It may be called more than once, and from a callback.
func (s *Session) Close() error {
	s.shut(inferred(codes.Canceled, ReasonSessionClosed, "the session was closed"))
	<-s.done
	return nil
}

// shut begins the end: turns fail at once, and the gateway has the time to close to end the stream.
func (s *Session) shut(why *Error) {
	s.mu.Lock()
	if s.phase == phaseOpen || s.phase == phaseDraining {
		s.phase, s.closing = phaseClosing, why
		s.outbox.clear()
		for _, turn := range s.turnsInOrder() {
			if turn.sent {
				s.outbox.add(cancelMessage(turn))
			}
			turn.fail(why.forTurn(turn, turn.replay()))
		}
		clear(s.turns)
		s.outbox.halfClose()
		timer := time.AfterFunc(s.opts.closeTimeout, s.cancel)
		context.AfterFunc(s.ctx, func() { timer.Stop() })
		if !s.connected {
			s.cancel()
		}
	}
	s.mu.Unlock()
	s.signalRoom()
}

func (s *Session) start(ctx context.Context, lane *Lane, request Request) (*Turn, error) {
	request, err := request.withExtra()
	if err != nil {
		return nil, err
	}
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		turn, wait, err := s.tryStart(ctx, lane, request)
		if wait == nil {
			return turn, err
		}
		if err := s.waitFor(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func (s *Session) waitFor(ctx context.Context, wait <-chan struct{}) error {
	s.startsWait.Add(1)
	defer s.startsWait.Add(-1)
	select {
	case <-wait:
	case <-s.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// tryStart returns a channel to wait for if too much is queued.
func (s *Session) tryStart(ctx context.Context, lane *Lane, request Request) (*Turn, <-chan struct{}, error) {
	trace := s.client.traceContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := &Turn{session: s, lane: lane, id: request.TurnID, order: s.started + 1, wake: make(chan struct{}, 1)}
	if turn.id == "" {
		turn.id = fmt.Sprintf("turn-%d", turn.order)
	}
	if err := s.usable(); err != nil {
		return nil, nil, err.forTurn(turn, ReplaySafe)
	}
	if _, running := s.turns[turn.id]; running {
		return nil, nil, inferred(codes.FailedPrecondition, ReasonTurnIDReused, "a turn of this id is running").
			forTurn(turn, ReplaySafe)
	}
	forked := false
	if state := s.lanes[lane.id]; state != nil {
		if state.undecided > 0 {
			return nil, state.settled, nil
		}
		if request.From == "" && !request.NewConversation && state.forkFrom != "" {
			request.From, forked = state.forkFrom, true
		}
		request, turn.answers = state.answering(request)
	}
	turn.start = request.startTurn(lane.id, turn.id, trace)
	message := &gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_StartTurn{StartTurn: turn.start}}
	if err := s.sendable(message); err != nil {
		return nil, nil, err.forTurn(turn, ReplaySafe)
	}
	if wait := s.outbox.full(s.opts.maxQueued); wait != nil {
		return nil, wait, nil
	}
	s.started++
	state := s.lane(lane.id)
	state.running++
	if turn.answers {
		state.awaitEnd()
	}
	if forked {
		state.forkFrom = ""
	}
	s.turns[turn.id] = turn
	s.outbox.add(outgoing{message: message, turn: turn})
	return turn, nil, nil
}

func (s *Session) steer(ctx context.Context, laneID, turnID string, input []*Item) error {
	message := &gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_SteerTurn{
		SteerTurn: &gatewayv1.SteerTurn{LaneId: laneID, TurnId: turnID, Input: input},
	}}
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait, err := s.trySteer(message)
		if wait == nil {
			return err
		}
		if err := s.waitFor(ctx, wait); err != nil {
			return err
		}
	}
}

func (s *Session) trySteer(message *gatewayv1.ConnectRequest) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil && s.phase != phaseDraining {
		// While the gateway drains, running turns may be steered.
		return nil, err
	}
	if err := s.sendable(message); err != nil {
		return nil, err
	}
	if wait := s.outbox.full(s.opts.maxQueued); wait != nil {
		return wait, nil
	}
	s.outbox.add(outgoing{message: message, about: s.target(message.GetSteerTurn())})
	return nil, nil
}

// target is the turn that a steer is for, as far as the session knows it. Called with mu held.
func (s *Session) target(steer *gatewayv1.SteerTurn) *Turn {
	if steer.GetTurnId() != "" {
		return s.turns[steer.GetTurnId()]
	}
	for _, turn := range s.turnsInOrder() {
		if turn.lane.id == steer.GetLaneId() {
			return turn
		}
	}
	return nil
}

func (s *Session) cancelTurn(turn *Turn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns[turn.id] != turn || turn.cancelRequested {
		return nil
	}
	turn.cancelRequested = true
	s.outbox.add(cancelMessage(turn))
	return nil
}

// usable says why nothing can be sent. Called with mu held.
func (s *Session) usable() *Error {
	switch {
	case s.err != nil:
		return s.err
	case s.phase == phaseDraining:
		return inferred(codes.Unavailable, ReasonDraining, "the gateway shuts down; open a new session")
	case s.closing != nil:
		return s.closing
	default:
		return nil
	}
}

// sendable refuses here what could not be sent, and would cost the stream.
func (s *Session) sendable(message *gatewayv1.ConnectRequest) *Error {
	limit := s.opened.GetLimits().GetMaxMessageBytes()
	if size := proto.Size(message); limit > 0 && uint64(size) > limit {
		return inferred(codes.ResourceExhausted, ReasonMessageTooLarge,
			fmt.Sprintf("a message of %d bytes; the gateway takes %d", size, limit))
	}
	if _, err := proto.Marshal(message); err != nil {
		// Text that is no UTF-8.
		return inferred(codes.InvalidArgument, ReasonInvalidField, "the request cannot be encoded: "+err.Error())
	}
	return nil
}

// release gives back room for events.
func (s *Session) release(bytes int64) {
	if bytes != 0 && s.buffered.Add(-bytes) < s.opts.maxBuffered {
		s.signalRoom()
	}
}

func (s *Session) signalRoom() {
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// finish ends the session for good.
func (s *Session) finish(err *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != phaseClosing || err.Reason == ReasonClientClosed {
		s.err = err
	}
	s.phase = phaseOver
	for _, turn := range s.turns {
		turn.fail(err.forTurn(turn, turn.replay()))
	}
	clear(s.turns)
	s.outbox.clear()
	s.cancel()
	s.client.forget(s)
	close(s.done)
}

// endTurn takes a turn out of the running ones. Called with mu held.
func (s *Session) endTurn(turn *Turn) {
	if s.turns[turn.id] == turn {
		delete(s.turns, turn.id)
		s.leaveLane(turn)
	}
}

// forget is called when nothing of an ended turn waits for a reader any more.
func (s *Session) forget(turn *Turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unread, turn)
}

// replay judges a turn whose end will never be heard. Called with mu held.
func (t *Turn) replay() Replay {
	switch {
	case t.seen:
		return ReplayUnsafe
	case t.sent:
		return ReplayUnknown
	default:
		return ReplaySafe
	}
}

func cancelMessage(turn *Turn) outgoing {
	return outgoing{about: turn, message: &gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_CancelTurn{
		CancelTurn: &gatewayv1.CancelTurn{LaneId: turn.lane.id, TurnId: turn.id},
	}}}
}
