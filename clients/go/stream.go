package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

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
		client:    client,
		opts:      opts,
		done:      make(chan struct{}),
		callbacks: callbacks{logger: client.opts.logger},
		lanes:     map[string]*laneState{},
		turns:     map[string]*Turn{},
		unread:    map[*Turn]struct{}{},
		outbox:    outbox{ready: make(chan struct{}, 1)},
		room:      make(chan struct{}, 1),
		affinity:  fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()),
	}
	// The session outlives the opening's context but keeps its values.
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	opening, stop := context.WithTimeout(ctx, opts.connectTimeout)
	defer stop()
	defer context.AfterFunc(client.closing, stop)()
	stream, opened, err := s.open(opening, nil)
	if err != nil {
		s.cancel()
		if client.closing.Err() != nil {
			return nil, clientClosed()
		}
		return nil, openError(ctx, opening, err)
	}
	s.opened, s.token, s.connected = opened, opened.GetResumeToken(), true
	if !client.remember(s) {
		s.cancel()
		stream.end()
		return nil, clientClosed()
	}
	go s.run(stream)
	return s, nil
}

// openError gives a reason to whatever kept a session from being opened.
func openError(ctx, opening context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	failure := asError(err)
	if opening.Err() != nil && failure.Reason == "" {
		late := inferred(codes.DeadlineExceeded, ReasonConnectTimeout, "no session in time: "+failure.Message)
		late.cause = opening.Err()
		return late
	}
	if failure.Reason == "" {
		failure.Reason, failure.Domain = ReasonUnreachable, errorDomain
	}
	return failure
}

func asError(err error) *Error {
	var failure *Error
	if errors.As(err, &failure) {
		return failure
	}
	return streamError(err)
}

// stream is one gRPC call of the session.
type stream struct {
	connection
	on     *sharedConn
	cancel context.CancelFunc
	pulse  pulse
	// done gives the place on the connection back.
	done func()
	// ended is closed when the writer has stopped.
	ended chan struct{}
}

func (s *stream) end() {
	s.cancel()
	s.done()
}

// open makes one attempt: Open out, Opened in. waitCtx bounds it.
func (s *Session) open(waitCtx context.Context, resume *gatewayv1.Resume) (*stream, *gatewayv1.Opened, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	stop := context.AfterFunc(waitCtx, cancel)
	stream, opened, err := s.handshake(waitCtx, ctx, resume)
	if !stop() && err == nil {
		stream.done()
		err = waitCtx.Err()
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	stream.cancel = cancel
	return stream, opened, nil
}

func (s *Session) handshake(waitCtx, ctx context.Context, resume *gatewayv1.Resume) (*stream, *gatewayv1.Opened, error) {
	// The program's token source is bounded by the attempt, even if it does not look at its context.
	pairs, err := within(waitCtx, s.client.headers)
	if err != nil {
		return nil, nil, tokenError(err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, append(pairs, "x-responses-session", s.affinity)...)
	conn, on, done, err := s.client.conns.open(ctx, func(ctx context.Context, conn *grpc.ClientConn) (connection, error) {
		return gatewayv1.NewResponsesServiceClient(conn).Connect(ctx, grpc.WaitForReady(resume != nil))
	})
	if err != nil {
		return nil, nil, asError(err)
	}
	opened, err := s.greet(conn, resume)
	if err != nil {
		if HasReason(err, ReasonDraining) {
			s.client.conns.retire(on)
		}
		done()
		return nil, nil, err
	}
	return &stream{connection: conn, on: on, done: done, ended: make(chan struct{})}, opened, nil
}

func (s *Session) greet(conn connection, resume *gatewayv1.Resume) (*gatewayv1.Opened, error) {
	open := &gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_Open{Open: s.openMessage(resume)}}
	// After a failed Send the reason comes from Recv.
	if err := conn.Send(open); err != nil && !errors.Is(err, io.EOF) {
		return nil, streamError(err)
	}
	response, err := conn.Recv()
	if errors.Is(err, io.EOF) {
		return nil, inferred(codes.Unavailable, "", "the stream ended before it was open")
	}
	if err != nil {
		return nil, streamError(err)
	}
	opened := response.GetOpened()
	if opened == nil {
		return nil, inferred(codes.Internal, ReasonProtocol, "the first message was not Opened")
	}
	return opened, nil
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

		MaxMessageBytes: uint64(s.client.opts.maxReceive),
		Budget:          o.budget,
	}
	if o.heartbeat > 0 {
		open.HeartbeatInterval = durationpb.New(o.heartbeat)
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

const (
	// A turn whose start was lost so often, each time on a stream that the gateway had opened, is given up: something
	// on the path does not carry it.
	maxUndelivered = 4
	// A stream that stood so long was no mistake, even if nothing came over it.
	steadyStream = 10 * time.Second
)

// losses are what happened since something was last heard behind Opened. Back-off and deadline run on over streams
// that are opened and lost again.
type losses struct {
	count int
	since time.Time
}

// run is the session's goroutine: one stream after the other, until the session is over.
func (s *Session) run(current *stream) {
	var lost losses
	for {
		began, heard := time.Now(), s.heard()
		current.pulse.began = began
		go s.write(current)
		interval := s.heartbeatInterval()
		if interval > 0 {
			go s.beat(current, interval)
		}
		err := s.read(current)
		if current.pulse.silent.Load() {
			// What is dead may be the whole connection.
			s.client.conns.retire(current.on)
			err = silence(interval)
		}
		s.setConnected(false)
		current.end()
		<-current.ended
		failure := s.verdict(err)
		if failure == nil {
			lost = s.count(lost, s.heard() > heard, time.Since(began), err)
			current, failure = s.resume(&lost)
		}
		if failure != nil {
			s.finish(failure)
			return
		}
	}
}

// count adds the loss of a stream.
func (s *Session) count(lost losses, heard bool, lived time.Duration, err error) losses {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.firstUndelivered()
	if heard || errors.Is(err, errReplace) || (lived >= steadyStream && first == nil) {
		return losses{}
	}
	if lost.count++; lost.since.IsZero() {
		lost.since = time.Now()
	}
	if lost.count < maxUndelivered || first == nil {
		return lost
	}
	failure := inferred(codes.Unavailable, ReasonTurnUndelivered, fmt.Sprintf(
		"the stream broke %d times after the turn was sent; something on the path may not carry its %d bytes",
		lost.count, proto.Size(first.start)))
	failure.Metadata = map[string]string{
		"bytes": strconv.Itoa(proto.Size(first.start)), "attempts": strconv.Itoa(lost.count),
	}
	s.endTurn(first)
	first.fail(failure.forTurn(first, ReplayUnknown))
	// Should it have arrived after all, nobody waits for it.
	s.outbox.add(cancelMessage(first))
	return losses{}
}

// firstUndelivered is the oldest turn that was sent and that the gateway has said nothing of. Called with mu held.
func (s *Session) firstUndelivered() *Turn {
	for _, turn := range s.turnsInOrder() {
		if turn.sent && !turn.seen && !turn.delivered {
			return turn
		}
	}
	return nil
}

// heard is the number of the newest event.
func (s *Session) heard() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastSeq
}

// verdict is nil if the session should be resumed.
func (s *Session) verdict(err error) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	planned := errors.Is(err, io.EOF)
	switch {
	case s.phase == phaseClosing:
		return s.closing
	case errors.Is(err, errReplace):
		return nil
	case planned && s.moving:
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
func (s *Session) resume(lost *losses) (*stream, *Error) {
	s.mu.Lock()
	resume := &gatewayv1.Resume{Token: s.token, LastSeq: s.lastSeq, LastCommit: proto.Uint64(s.lastCommit)}
	// Where another gateway can go on, one that goes down is only not the right one.
	elsewhere := s.moving || s.opened.GetDurable()
	grace := s.opened.GetResumeGrace().AsDuration()
	if grace <= 0 {
		grace = defaultGrace
	}
	began := time.Now()
	if !lost.since.IsZero() {
		began = lost.since
	}
	deadline := began.Add(grace)
	if s.phase == phaseDraining && s.drainedBy.Before(deadline) {
		deadline = s.drainedBy
	}
	s.mu.Unlock()
	failure := inferred(codes.Unavailable, ReasonStreamLost, "the stream is lost again and again")
	// The first attempt comes at once, unless the last stream brought nothing.
	for attempt := max(0, lost.count-1); ; attempt++ {
		if attempt > 0 {
			wait := retryDelay(attempt-1, failure.RetryAfter)
			if s.ctx.Err() != nil || s.isClosing() || time.Now().Add(wait).After(deadline) {
				return nil, s.givenUp(failure)
			}
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-s.ctx.Done():
				timer.Stop()
				return nil, s.givenUp(failure)
			}
		}
		ctx, cancel := context.WithDeadline(s.ctx, earlier(deadline, time.Now().Add(attemptTimeout)))
		next, opened, err := s.open(ctx, resume)
		cancel()
		if err == nil {
			delivered, failure := s.reconcile(opened)
			if failure != nil {
				next.end()
				return nil, failure
			}
			if delivered {
				*lost = losses{}
			}
			return next, nil
		}
		failure = asError(err)
		if !failure.resumable() && !(elsewhere && failure.Reason == ReasonDraining) {
			return nil, s.withReason(failure)
		}
	}
}

// givenUp is the session's end when no stream could be opened in time.
func (s *Session) givenUp(last *Error) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing != nil {
		return s.closing
	}
	lost := inferred(codes.Unavailable, ReasonStreamLost, "the stream could not be resumed in time: "+last.Message)
	lost.cause, lost.Metadata = last, last.Metadata
	return lost
}

func (s *Session) withReason(failure *Error) *Error {
	if failure.Reason == "" {
		failure.Reason, failure.Domain = ReasonStreamLost, errorDomain
	}
	return failure
}

// reconcile brings turns and outbox in line with what the gateway says after a resume. delivered: it knows of a turn
// that nothing was heard of before.
func (s *Session) reconcile(opened *gatewayv1.Opened) (delivered bool, failure *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch opened.GetResumeOutcome() {
	case gatewayv1.ResumeOutcome_RESUME_OUTCOME_RESUMED, gatewayv1.ResumeOutcome_RESUME_OUTCOME_PARTIAL,
		gatewayv1.ResumeOutcome_RESUME_OUTCOME_RECOVERED:
	default:
		// The new session that the gateway offers instead has none of the lanes' conversations: a turn sent there
		// would silently begin a new one.
		gone := inferred(codes.NotFound, ReasonSessionExpired, "the gateway no longer has the session")
		if reason := opened.GetGoneReason(); reason != "" {
			gone.Reason = reason
		}
		return false, gone
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
		if ours := s.turns[turn.GetTurnId()]; ours != nil && !ours.delivered {
			ours.delivered = true
			delivered = delivered || !ours.seen
		}
	}
	if opened.GetResumeOutcome() == gatewayv1.ResumeOutcome_RESUME_OUTCOME_PARTIAL {
		s.loseEvents(active)
		s.lastSeq = opened.GetOldestSeq() - 1
	}
	// What was on its way may have got lost. Repeating a start is safe: the gateway knows its turn ids.
	for id, running := range active {
		if s.turns[id] == nil {
			// Nobody here waits for it any more.
			s.outbox.add(outgoing{message: &gatewayv1.ConnectRequest{Message: &gatewayv1.ConnectRequest_CancelTurn{
				CancelTurn: &gatewayv1.CancelTurn{LaneId: running.GetLaneId(), TurnId: id},
			}}})
		}
	}
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
	s.moving = false
	s.outbox.letGo()
	s.outbox.addFirst(again)
	s.outbox.wake()
	s.unackedEvents, s.unackedBytes = 0, 0
	return delivered, nil
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
		s.endTurn(turn)
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
		current.pulse.waits(true)
		response, err := current.Recv()
		current.pulse.waits(false)
		if err != nil {
			return err
		}
		switch message := response.GetMessage().(type) {
		case *gatewayv1.ConnectResponse_Events:
			if err := s.takeEvents(message.Events.GetEvents()); err != nil {
				return err
			}
		case *gatewayv1.ConnectResponse_GoAway:
			if s.takeGoAway(current, message.GoAway) {
				return errReplace
			}
		}
	}
}

// stallPatience is how long a full buffer may keep a reader of another turn waiting.
const stallPatience = time.Second

// waitForRoom is the backpressure: while nothing is received, HTTP/2 holds the gateway up, and nothing is lost however
// slowly somebody reads. Only where the reader of another turn waits, the events in its way are folded into results.
func (s *Session) waitForRoom() error {
	buffered := s.buffered.Load()
	if buffered < s.opts.maxBuffered/2 {
		s.fullSince = time.Time{}
		return nil
	}
	if buffered < s.opts.maxBuffered {
		// A reader that is only slow lets a little in each time.
		if !s.fullSince.IsZero() && time.Since(s.fullSince) >= stallPatience {
			s.makeRoom()
		}
		return nil
	}
	if s.fullSince.IsZero() {
		s.fullSince = time.Now()
	}
	patience := time.NewTicker(stallPatience / 5)
	defer patience.Stop()
	for s.buffered.Load() >= s.opts.maxBuffered && !s.isClosing() {
		select {
		case <-s.room:
		case <-patience.C:
			if time.Since(s.fullSince) >= stallPatience {
				s.makeRoom()
			}
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	return nil
}

// makeRoom folds turns, those that nobody reads first and then the largest, if the reader of another one waits.
func (s *Session) makeRoom() {
	type full struct {
		turn    *Turn
		bytes   int64
		wasRead bool
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var candidates []full
	waits := s.startsWait.Load() > 0
	consider := func(turn *Turn) {
		bytes, waiting, wasRead := turn.load()
		waits = waits || waiting
		if bytes > 0 {
			candidates = append(candidates, full{turn, bytes, wasRead})
		}
	}
	for _, turn := range s.turns {
		consider(turn)
	}
	for turn := range s.unread {
		consider(turn)
	}
	if !waits {
		return
	}
	slices.SortFunc(candidates, func(a, b full) int {
		if a.wasRead != b.wasRead {
			if b.wasRead {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.bytes, a.bytes)
	})
	for _, each := range candidates {
		if s.buffered.Load() <= s.opts.maxBuffered/2 {
			return
		}
		s.buffered.Add(-each.turn.fold())
		delete(s.unread, each.turn)
	}
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
		s.lastCommit = max(s.lastCommit, event.GetCommit())
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
	if s.moving && !s.running() {
		return errReplace
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
		if onEvent := s.opts.onEvent; onEvent != nil && s.phase != phaseClosing {
			s.callbacks.add(func() { onEvent(event) })
		}
		return nil
	}
	last := pb.GetOutcome() != gatewayv1.TurnOutcome_TURN_OUTCOME_UNSPECIFIED
	if reused := !turn.seen && pb.GetTurnFailed().GetReason() == ReasonTurnIDReused && !last; reused {
		// The id belongs to an earlier turn, so this one gets no last event of its own.
		s.endTurn(turn)
		turn.fail(event.Failure())
		return nil
	}
	if !turn.seen {
		turn.seen, turn.start = true, nil
	}
	if id := responseIDOf(pb); id != "" {
		state := s.lane(turn.lane.id)
		state.lastResponse, state.open = id, nil
	}
	// Counted before it can be read: the reader gives it back.
	s.buffered.Add(size)
	pushed := turn.push(queuedEvent{event, size}, last)
	s.buffered.Add(pushed - size)
	switch {
	case last && turn.orphan:
		s.settleOrphan(turn)
	case last && pushed > 0:
		s.unread[turn] = struct{}{}
	}
	if last {
		s.endTurn(turn)
	}
	return turn
}

// takeGoAway returns true if the stream should be replaced at once.
func (s *Session) takeGoAway(current *stream, message *gatewayv1.GoAway) bool {
	goAway := GoAway{
		Draining: message.GetReason() != gatewayv1.GoAwayReason_GO_AWAY_REASON_MAX_AGE,
		Movable:  message.GetMovable() && !s.opts.noResume,
		TimeLeft: message.GetTimeLeft().AsDuration(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if token := message.GetResumeToken(); token != "" {
		s.token = token
	}
	if onGoAway := s.opts.onGoAway; onGoAway != nil {
		s.callbacks.add(func() { onGoAway(goAway) })
	}
	switch {
	case s.phase != phaseOpen:
		return false
	case !goAway.Draining:
		return !s.opts.noResume
	case goAway.Movable:
		s.moving = true
		s.outbox.hold()
		s.client.conns.retire(current.on)
		return !s.running()
	default:
		s.phase = phaseDraining
		s.drainedBy = time.Now().Add(goAway.TimeLeft)
		return false
	}
}

// running says whether a turn that was sent has no outcome yet. Called with mu held.
func (s *Session) running() bool {
	for _, turn := range s.turns {
		if turn.sent {
			return true
		}
	}
	return false
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
