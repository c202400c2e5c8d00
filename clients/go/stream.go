package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

const (
	// Waits between attempts to resume. The first attempt comes at once: most streams break with a gateway or
	// balancer that is already replaced.
	minRetryDelay = 100 * time.Millisecond
	maxRetryDelay = 3 * time.Second
	// One attempt to resume takes no longer, so that a dead address does not use up the grace time.
	attemptTimeout = 10 * time.Second
	// Grace time if the gateway names none.
	defaultGrace = 60 * time.Second

	// Acknowledge often enough to keep the gateway's resume buffer (2 MiB) small, and rarely enough to cost nothing.
	ackEvents = 512
	ackBytes  = 256 << 10
)

type connection = grpc.BidiStreamingClient[gatewayv1.ConnectRequest, gatewayv1.ConnectResponse]

// connect opens a session and starts its one goroutine.
func connect(ctx context.Context, client *Client, opts sessionOptions) (*Session, error) {
	s := &Session{
		client: client,
		opts:   opts,
		done:   make(chan struct{}),
		lanes:  map[string]*Lane{},
		turns:  map[string]*Turn{},
		outbox: outbox{ready: make(chan struct{}, 1)},
		room:   make(chan struct{}, 1),
	}
	// The session outlives the opening's context but keeps its values.
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	stream, opened, err := s.open(ctx, nil)
	if err != nil {
		s.cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	s.opened, s.token, s.connected = opened, opened.GetResumeToken(), true
	go s.run(stream)
	return s, nil
}

// stream is one gRPC call of the session.
type stream struct {
	connection
	cancel context.CancelFunc
	// ended is closed when the writer has stopped.
	ended chan struct{}
}

// open makes one attempt: Open out, Opened in. waitCtx bounds it.
func (s *Session) open(waitCtx context.Context, resume *gatewayv1.Resume) (*stream, *gatewayv1.Opened, error) {
	base, err := s.client.Outgoing(s.ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(base)
	stop := context.AfterFunc(waitCtx, cancel)
	opened, conn, err := s.handshake(ctx, resume)
	if !stop() || err != nil {
		cancel()
		if err == nil {
			err = waitCtx.Err()
		}
		return nil, nil, err
	}
	return &stream{connection: conn, cancel: cancel, ended: make(chan struct{})}, opened, nil
}

func (s *Session) handshake(ctx context.Context, resume *gatewayv1.Resume) (*gatewayv1.Opened, connection, error) {
	conn, err := s.client.Stub().Connect(ctx, grpc.WaitForReady(resume != nil))
	if err != nil {
		return nil, nil, streamError(err)
	}
	open := &gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_Open{Open: s.openMessage(resume)}}
	// After a failed Send the reason comes from Recv.
	if err := conn.Send(open); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, streamError(err)
	}
	response, err := conn.Recv()
	if err != nil {
		return nil, nil, streamError(err)
	}
	opened := response.GetOpened()
	if opened == nil {
		return nil, nil, inferred(codes.Internal, ReasonProtocol, "the first message was not Opened")
	}
	return opened, conn, nil
}

func (s *Session) openMessage(resume *gatewayv1.Resume) *gatewayv1.Open {
	o := &s.opts
	open := &gatewayv1.Open{
		SchemaRevision: schemaRevision,
		Resume:         resume,
		Upstream:       o.upstream,
		Metadata:       o.labels,
		Model:          o.model,
		ClientName:     o.clientName,
		ClientVersion:  o.version,
	}
	if o.rawJSON {
		open.Payload = gatewayv1.PayloadFormat_PAYLOAD_FORMAT_BOTH
	}
	if o.noRecovery {
		open.Recovery = proto.Bool(false)
	}
	return open
}

// errReplace ends reading of a stream that has grown old.
var errReplace = errors.New("replace the stream")

// run is the session's goroutine: one stream after the other, until the session is over.
func (s *Session) run(current *stream) {
	for {
		go s.write(current)
		err := s.read(current)
		s.setConnected(false)
		current.cancel()
		<-current.ended
		failure := s.verdict(err)
		if failure == nil {
			current, failure = s.resume()
		}
		if failure != nil {
			s.finish(failure)
			return
		}
	}
}

// verdict is nil if the session should be resumed.
func (s *Session) verdict(err error) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	planned := errors.Is(err, io.EOF)
	switch {
	case s.phase == phaseClosing:
		return inferred(codes.Canceled, ReasonSessionClosed, "the session was closed")
	case errors.Is(err, errReplace):
		return nil
	case planned && s.phase == phaseDraining:
		return inferred(codes.Unavailable, ReasonDraining, "the gateway shut down")
	}
	failure := &Error{Code: codes.Unavailable, Reason: ReasonStreamLost, Message: "the stream ended", Inferred: true}
	if !planned && !errors.As(err, &failure) {
		failure = streamError(err)
	}
	if failure.resumable() && !s.opts.noResume && s.token != "" {
		return nil
	}
	if failure.Reason == "" && failure.resumable() {
		failure.Reason = ReasonStreamLost
	}
	return failure
}

// resume opens streams until one is accepted or the grace time has passed.
func (s *Session) resume() (*stream, *Error) {
	s.mu.Lock()
	resume := &gatewayv1.Resume{Token: s.token, LastSeq: s.lastSeq}
	grace := s.opened.GetResumeGrace().AsDuration()
	if grace <= 0 {
		grace = defaultGrace
	}
	deadline := time.Now().Add(grace)
	if s.phase == phaseDraining && s.drainedBy.Before(deadline) {
		deadline = s.drainedBy
	}
	s.mu.Unlock()
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithDeadline(s.ctx, earlier(deadline, time.Now().Add(attemptTimeout)))
		next, opened, err := s.open(ctx, resume)
		cancel()
		if err == nil {
			if failure := s.reconcile(opened); failure != nil {
				next.cancel()
				return nil, failure
			}
			return next, nil
		}
		failure := &Error{}
		if !errors.As(err, &failure) {
			failure = streamError(err)
		}
		if !failure.resumable() {
			return nil, failure
		}
		wait := retryDelay(attempt, failure.RetryAfter)
		if s.ctx.Err() != nil || s.isClosing() || time.Now().Add(wait).After(deadline) {
			lost := inferred(codes.Unavailable, ReasonStreamLost, "the stream could not be resumed in time")
			lost.cause = err
			return nil, lost
		}
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
		}
	}
}

// reconcile brings turns and outbox in line with what the gateway says after a resume.
func (s *Session) reconcile(opened *gatewayv1.Opened) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch opened.GetResumeOutcome() {
	case gatewayv1.ResumeOutcome_RESUME_OUTCOME_RESUMED, gatewayv1.ResumeOutcome_RESUME_OUTCOME_PARTIAL:
	default:
		// The new session that the gateway offers instead has none of the lanes' conversations: a turn sent there
		// would silently begin a new one.
		return inferred(codes.NotFound, ReasonSessionExpired, "the gateway no longer has the session")
	}
	s.resumes++
	s.connected = true
	if token := opened.GetResumeToken(); token != "" {
		s.token = token
	}
	s.opened = opened
	active := map[string]*gatewayv1.ActiveTurn{}
	for _, turn := range opened.GetActiveTurns() {
		active[turn.GetTurnId()] = turn
	}
	if opened.GetResumeOutcome() == gatewayv1.ResumeOutcome_RESUME_OUTCOME_PARTIAL {
		s.loseEvents(active)
		s.lastSeq = opened.GetOldestSeq() - 1
	}
	// What was on its way may have got lost. Repeating a start is safe: the gateway knows its turn ids.
	var again []outgoing
	for _, turn := range s.turnsInOrder() {
		if turn.sent && !turn.seen && active[turn.id] == nil {
			again = append(again, outgoing{turn: turn, message: &gatewayv1.ConnectRequest{
				Message: &gatewayv1.ConnectRequest_StartTurn{StartTurn: turn.start},
			}})
		}
	}
	for _, turn := range s.turnsInOrder() {
		if turn.sent && turn.cancelRequested {
			again = append(again, cancelMessage(turn))
		}
	}
	s.outbox.addFirst(again)
	s.outbox.wake()
	s.unackedEvents, s.unackedBytes = 0, 0
	return nil
}

// loseEvents fails the turns that have a hole. Called with mu held.
func (s *Session) loseEvents(active map[string]*gatewayv1.ActiveTurn) {
	for _, turn := range s.turnsInOrder() {
		running := active[turn.id]
		untouched := !turn.sent || (running != nil && !turn.seen &&
			running.GetPhase() <= gatewayv1.TurnPhase_TURN_PHASE_SENT)
		if untouched {
			continue
		}
		delete(s.turns, turn.id)
		if running != nil {
			s.outbox.add(cancelMessage(turn))
		}
		turn.fail(inferred(codes.DataLoss, ReasonEventsLost, "events of the turn are gone").forTurn(turn, turn.replay()))
	}
}

func (s *Session) turnsInOrder() []*Turn {
	turns := make([]*Turn, 0, len(s.turns))
	for _, turn := range s.turns {
		turns = append(turns, turn)
	}
	slices.SortFunc(turns, func(a, b *Turn) int { return int(a.order) - int(b.order) })
	return turns
}

// write sends the outbox until the stream ends.
func (s *Session) write(current *stream) {
	defer close(current.ended)
	for {
		s.mu.Lock()
		out, some := s.outbox.take()
		if some && out.turn != nil {
			// Before it is sent: afterwards nobody could say that it was not.
			out.turn.sent = true
		}
		s.mu.Unlock()
		if !some {
			select {
			case <-s.outbox.ready:
				continue
			case <-current.Context().Done():
				return
			}
		}
		if out.last {
			_ = current.CloseSend()
			continue
		}
		// The reader hears why it failed, and what was lost is sorted out when the session is resumed.
		if err := current.Send(out.message); err != nil {
			return
		}
	}
}

// read takes messages until the stream ends.
func (s *Session) read(current *stream) error {
	for {
		if err := s.waitForRoom(); err != nil {
			return err
		}
		response, err := current.Recv()
		if err != nil {
			return err
		}
		switch message := response.GetMessage().(type) {
		case *gatewayv1.ConnectResponse_Events:
			if err := s.takeEvents(message.Events.GetEvents()); err != nil {
				return err
			}
		case *gatewayv1.ConnectResponse_GoAway:
			if s.takeGoAway(message.GoAway) {
				return errReplace
			}
		}
	}
}

// waitForRoom is the backpressure: while nothing is received, HTTP/2 holds the gateway up.
func (s *Session) waitForRoom() error {
	for s.buffered.Load() >= s.opts.maxBuffered && !s.isClosing() {
		select {
		case <-s.room:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	return nil
}

func (s *Session) takeEvents(events []*gatewayv1.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bytes int64
	var last *Turn
	for _, event := range events {
		if event.GetSeq() != s.lastSeq+1 {
			return inferred(codes.Internal, ReasonProtocol,
				fmt.Sprintf("event %d came after %d", event.GetSeq(), s.lastSeq))
		}
		s.lastSeq = event.GetSeq()
		size := int64(proto.Size(event))
		bytes += size
		turn := s.route(event, size)
		// One signal for a run of events of the same turn.
		if last != nil && last != turn {
			last.signal()
		}
		last = turn
	}
	if last != nil {
		last.signal()
	}
	if now := s.buffered.Load(); now > s.maxBuffered.Load() {
		s.maxBuffered.Store(now)
	}
	s.unackedEvents += len(events)
	s.unackedBytes += bytes
	if s.unackedEvents >= ackEvents || s.unackedBytes >= ackBytes {
		s.unackedEvents, s.unackedBytes = 0, 0
		s.outbox.add(outgoing{message: &gatewayv1.ConnectRequest{
			Message: &gatewayv1.ConnectRequest_Ack{Ack: &gatewayv1.Ack{Seq: s.lastSeq}},
		}})
	}
	return nil
}

// route hands an event to its turn. Called with mu held; returns the turn to signal.
func (s *Session) route(pb *gatewayv1.Event, size int64) *Turn {
	event := Event{pb}
	turn := s.turns[pb.GetTurnId()]
	if turn == nil || pb.GetTurnId() == "" {
		if s.opts.onEvent != nil && s.phase != phaseClosing {
			// Without the lock: the callback may use the session.
			s.mu.Unlock()
			s.opts.onEvent(event)
			s.mu.Lock()
		}
		return nil
	}
	last := pb.GetOutcome() != gatewayv1.TurnOutcome_TURN_OUTCOME_UNSPECIFIED
	if reused := !turn.seen && pb.GetTurnFailed().GetReason() == "TURN_ID_REUSED" && !last; reused {
		// The id belongs to an earlier turn, so this one gets no last event of its own.
		delete(s.turns, turn.id)
		turn.fail(event.Failure())
		return nil
	}
	if !turn.seen {
		turn.seen, turn.start = true, nil
	}
	if last {
		delete(s.turns, turn.id)
	}
	if id := responseIDOf(pb); id != "" {
		turn.lane.lastResponse = id
	}
	s.buffered.Add(size)
	if !turn.push(queuedEvent{event, size}, last) {
		s.buffered.Add(-size)
		return nil
	}
	return turn
}

// takeGoAway returns true if the stream should be replaced at once.
func (s *Session) takeGoAway(message *gatewayv1.GoAway) bool {
	goAway := GoAway{
		Draining: message.GetReason() != gatewayv1.GoAwayReason_GO_AWAY_REASON_MAX_AGE,
		TimeLeft: message.GetTimeLeft().AsDuration(),
	}
	s.mu.Lock()
	if token := message.GetResumeToken(); token != "" {
		s.token = token
	}
	if goAway.Draining && s.phase == phaseOpen {
		s.phase = phaseDraining
		s.drainedBy = time.Now().Add(goAway.TimeLeft)
	}
	replace := !goAway.Draining && s.phase == phaseOpen && !s.opts.noResume
	s.mu.Unlock()
	if s.opts.onGoAway != nil {
		s.opts.onGoAway(goAway)
	}
	return replace
}

func (s *Session) setConnected(connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected = connected
}

func (s *Session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase == phaseClosing
}

// responseIDOf is the id of a response that later turns of the lane continue from.
func responseIDOf(pb *gatewayv1.Event) string {
	switch payload := pb.Payload.(type) {
	case *gatewayv1.Event_ResponseCompleted:
		return payload.ResponseCompleted.GetResponse().GetId()
	case *gatewayv1.Event_ResponseIncomplete:
		return payload.ResponseIncomplete.GetResponse().GetId()
	default:
		return ""
	}
}

func retryDelay(attempt int, told *time.Duration) time.Duration {
	delay := min(minRetryDelay<<min(attempt, 10), maxRetryDelay)
	if attempt == 0 {
		delay = minRetryDelay / 2
	}
	delay = delay/2 + rand.N(delay/2+1)
	if told != nil && *told > delay {
		return *told
	}
	return delay
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
