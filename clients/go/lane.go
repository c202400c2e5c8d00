package gateway

import "context"

// Lane is one line of conversation in a session: its turns run one after the other, lanes run side by side. It
// costs nothing until its first turn. An upstream connection carries some 32 named lanes in its life; the gateway
// opens more connections as needed.
type Lane struct {
	session *Session
	id      string
	// Guarded by session.mu. Response that the next turn continues from, if not the lane's own last one.
	forkFrom     string
	lastResponse string
}

// ID is the lane's name; "" is the default lane.
func (l *Lane) ID() string { return l.id }

// Start starts a turn and returns when it is queued for sending; it waits, as long as ctx allows, while too much
// is queued. Turns of one lane run in the order of their Starts. The span of ctx becomes the turn's parent.
func (l *Lane) Start(ctx context.Context, request Request) (*Turn, error) {
	return l.session.start(ctx, l, request)
}

// WarmUp prepares instructions, tools and input upstream without producing output, so that the next turn answers
// sooner. Where the upstream cannot, the turn fails with reason NOT_SUPPORTED_BY_UPSTREAM.
func (l *Lane) WarmUp(ctx context.Context, request Request) (*Turn, error) {
	return l.session.start(ctx, l, request.warmUp())
}

// Steer adds user input to whatever turn runs on the lane. See [Turn.Steer].
func (l *Lane) Steer(ctx context.Context, input []*Item) error {
	return l.session.steer(ctx, l.id, "", input)
}

// Fork returns the lane id, whose first turn continues from the last response of this lane as it is now. Both
// then go their own ways.
func (l *Lane) Fork(id string) *Lane {
	s := l.session
	s.mu.Lock()
	defer s.mu.Unlock()
	fork := s.lane(id)
	fork.forkFrom = l.lastResponse
	return fork
}

// LastResponseID is the response that the lane's next turn continues from, as far as the client has heard.
func (l *Lane) LastResponseID() string {
	l.session.mu.Lock()
	defer l.session.mu.Unlock()
	return l.lastResponse
}
