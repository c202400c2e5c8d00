package gateway

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Responses are turns without a session, and what the upstream keeps of responses. Failures are an *Error with the
// gateway's reason, for instance UNKNOWN_RESPONSE.
type Responses struct{ client *Client }

// Responses returns the calls without a session.
func (c *Client) Responses() *Responses { return &Responses{c} }

// CallOptions are what all calls without a session take. The zero value is valid.
type CallOptions struct {
	// Upstream is a configured upstream of the gateway. "": the default one. A stored response is known where it was made.
	Upstream string
	// Timeout is kept by the gateway. 0: the gateway's default.
	Timeout time.Duration
}

// CreateOptions go with Responses.Create.
type CreateOptions struct {
	CallOptions
	// IdempotencyKey makes the call safe to send again: within a day the same key with the same request gets the first
	// call's answer, and never runs a second turn. 1 to 256 visible ASCII characters. "": each call runs.
	IdempotencyKey string
	// RawJSON delivers the upstream's exact JSON with each event.
	RawJSON bool
}

// StreamOptions go with Responses.Stream.
type StreamOptions struct {
	CallOptions
	// StartingAfter is the sequence number of the last event that is known; later ones come. Nil: all.
	StartingAfter *int64
	// Include asks for more output, for instance "reasoning.encrypted_content".
	Include []string
	// RawJSON delivers the upstream's exact JSON with each event.
	RawJSON bool
}

// GetOptions go with Responses.Get.
type GetOptions struct {
	CallOptions
	// Include asks for more output, for instance "reasoning.encrypted_content".
	Include []string
}

// ListOptions go with Responses.InputItems.
type ListOptions struct {
	CallOptions
	// After is the item after which to begin. "": at the beginning.
	After string
	// Limit is the size of a page, 1 to 100; all pages are read. 0: the upstream's default, 20.
	Limit int
	// Order is "asc" or "desc". "": the upstream's default, desc, the newest first.
	Order string
	// Include asks for more.
	Include []string
}

// Create runs one turn. It calls when the stream is first read; ctx bounds the call. A background one (Create:
// &CreateBody{Background: Ptr(true)}) goes on when nobody reads: see [Responses.Stream]. What is about lanes in the
// request has no meaning here.
func (r *Responses) Create(ctx context.Context, request Request, options CreateOptions) *ResponseStream {
	return newResponseStream(ctx, r.client, func(ctx context.Context) (eventStream, error) {
		request, err := request.withExtra()
		if err != nil {
			return nil, err
		}
		message := &gatewayv1.CreateResponseRequest{
			Create: request.single(), Payload: payload(options.RawJSON), Upstream: options.Upstream,
			WaitOnRateLimit: request.WaitOnRateLimit, IdempotencyKey: options.IdempotencyKey,
			Timeout: limit(cmp.Or(options.Timeout, request.Timeout)),
		}
		call, err := r.client.Stub().CreateResponse(ctx, message)
		return batches[*gatewayv1.CreateResponseResponse]{call}, err
	})
}

// Get reads a stored response; of a background one that runs, as far as it is.
func (r *Responses) Get(ctx context.Context, responseID string, options GetOptions) (*gatewayv1.Response, error) {
	message := &gatewayv1.GetResponseRequest{
		ResponseId: responseID, Include: options.Include, Options: options.proto(),
	}
	answer, err := call(ctx, r.client, r.client.Stub().GetResponse, message)
	return answer.GetResponse(), err
}

// Stream follows a background response to its end. To go on after a lost connection, give LastSequenceNumber of what was
// read before as StartingAfter. It calls when it is first read; ctx bounds the call.
func (r *Responses) Stream(ctx context.Context, responseID string, options StreamOptions) *ResponseStream {
	return newResponseStream(ctx, r.client, func(ctx context.Context) (eventStream, error) {
		given := options.proto()
		given.Payload = payload(options.RawJSON)
		call, err := r.client.Stub().StreamResponse(ctx, &gatewayv1.StreamResponseRequest{
			ResponseId: responseID, StartingAfter: options.StartingAfter, Include: options.Include, Options: given,
		})
		return batches[*gatewayv1.StreamResponseResponse]{call}, err
	})
}

// Delete deletes a stored response.
func (r *Responses) Delete(ctx context.Context, responseID string, options CallOptions) error {
	message := &gatewayv1.DeleteResponseRequest{ResponseId: responseID, Options: options.proto()}
	_, err := call(ctx, r.client, r.client.Stub().DeleteResponse, message)
	return err
}

// Cancel stops a background response, and returns it as it was left.
func (r *Responses) Cancel(ctx context.Context, responseID string, options CallOptions) (*gatewayv1.Response, error) {
	message := &gatewayv1.CancelResponseRequest{ResponseId: responseID, Options: options.proto()}
	answer, err := call(ctx, r.client, r.client.Stub().CancelResponse, message)
	return answer.GetResponse(), err
}

// InputItems ranges over what a stored response was given, page after page. An error ends the range.
func (r *Responses) InputItems(ctx context.Context, responseID string, options ListOptions) iter.Seq2[*Item, error] {
	return func(yield func(*Item, error) bool) {
		message := &gatewayv1.ListInputItemsRequest{
			ResponseId: responseID, Include: options.Include, Options: options.proto(),
		}
		put(&message.After, options.After)
		put(&message.Limit, int32(min(options.Limit, 1<<16)))
		put(&message.Order, options.Order)
		for {
			answer, err := call(ctx, r.client, r.client.Stub().ListInputItems, message)
			if err != nil {
				yield(nil, err)
				return
			}
			page := answer.GetPage()
			for _, item := range page.GetData() {
				if !yield(item, nil) {
					return
				}
			}
			if !page.GetHasMore() || page.GetLastId() == "" {
				return
			}
			message.After = page.LastId
		}
	}
}

// CountInputTokens says how many tokens of input a request has; it does not run.
func (r *Responses) CountInputTokens(ctx context.Context, request Request, options CallOptions) (int64, error) {
	create := request.single()
	count := &gatewayv1.CountBody{
		Model: create.Model, Input: create.Input, Instructions: create.Instructions,
		PreviousResponseId: create.PreviousResponseId, ConversationId: create.ConversationId,
		Conversation: create.Conversation, Tools: create.Tools, ToolChoice: create.ToolChoice,
		ParallelToolCalls: create.ParallelToolCalls, Reasoning: create.Reasoning, Text: create.Text,
		Truncation: create.Truncation,
	}
	message := &gatewayv1.CountInputTokensRequest{Count: count, Options: options.proto()}
	answer, err := call(ctx, r.client, r.client.Stub().CountInputTokens, message)
	return answer.GetCount().GetInputTokens(), err
}

// Models are those that the caller may use.
func (r *Responses) Models(ctx context.Context, options CallOptions) ([]*gatewayv1.Model, error) {
	answer, err := call(ctx, r.client, r.client.Stub().ListModels, &gatewayv1.ListModelsRequest{Options: options.proto()})
	return answer.GetModels().GetData(), err
}

// ResponseStream is the events of one response, up to the one with an Outcome. It is read once, by one reader, who ranges
// over Events or takes the Final result; Final after some Events takes what is left into account.
type ResponseStream struct {
	ctx    context.Context
	cancel context.CancelFunc
	client *Client
	open   func(context.Context) (eventStream, error)

	call    eventStream
	waiting []*gatewayv1.Event
	over    bool
	failure error
	last    *int64
	result  accumulator
}

// eventStream is a call that brings events.
type eventStream interface {
	next() ([]*gatewayv1.Event, error)
}

func newResponseStream(ctx context.Context, client *Client, open func(context.Context) (eventStream, error)) *ResponseStream {
	ctx, cancel := context.WithCancel(ctx)
	return &ResponseStream{ctx: ctx, cancel: cancel, client: client, open: open}
}

// Events ranges over the events. An error ends the range: the turn's *Error after its last event, or that of the call. A
// range that was left can be gone on with.
func (s *ResponseStream) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			event, more, err := s.read()
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

// Final reads to the end and returns the result. With an error the result holds what there is. An incomplete response is
// no error: see Result.Outcome.
func (s *ResponseStream) Final() (*Result, error) {
	for {
		_, more, err := s.read()
		if err != nil || !more {
			return s.SoFar(), err
		}
	}
}

// SoFar is the result as far as it was read.
func (s *ResponseStream) SoFar() *Result { return s.result.result("", "") }

// LastSequenceNumber is that of the last event that was read, for StreamOptions.StartingAfter; nil before the first.
func (s *ResponseStream) LastSequenceNumber() *int64 { return s.last }

// Close gives the call up, which a background response survives. A stream that is not read to its end has to be closed.
func (s *ResponseStream) Close() {
	s.over = true
	s.cancel()
}

// read returns the next event; false after the last one of a response that went well.
func (s *ResponseStream) read() (Event, bool, error) {
	for len(s.waiting) == 0 {
		if s.over || s.failure != nil {
			return Event{}, false, s.failure
		}
		if err := s.receive(); err != nil {
			s.cancel()
			s.failure = err
		}
	}
	event := Event{s.waiting[0]}
	s.waiting = s.waiting[1:]
	s.result.add(event.pb)
	if number := sequenceNumber(event.pb); number != nil {
		s.last = number
	}
	if event.Outcome() != Running {
		s.Close()
		if failure := event.Failure(); failure != nil {
			failure.Result = s.SoFar()
			s.failure = failure
		}
	}
	return event, true, nil
}

func (s *ResponseStream) receive() error {
	if s.call == nil {
		ctx, err := s.client.Outgoing(s.ctx)
		if err != nil {
			return err
		}
		if s.call, err = s.open(ctx); err != nil {
			return s.client.callError(err)
		}
	}
	events, err := s.call.next()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	s.waiting = events
	return s.client.callError(err)
}

// batches are the messages of a call that brings events.
type batches[M interface{ GetEvents() []*gatewayv1.Event }] struct {
	call interface{ Recv() (M, error) }
}

func (b batches[M]) next() ([]*gatewayv1.Event, error) {
	batch, err := b.call.Recv()
	if err != nil {
		return nil, err
	}
	return batch.GetEvents(), nil
}

func call[Q, A any](
	ctx context.Context, client *Client, method func(context.Context, Q, ...grpc.CallOption) (A, error), message Q,
) (answer A, err error) {
	ctx, err = client.Outgoing(ctx)
	if err != nil {
		return answer, err
	}
	answer, err = method(ctx, message)
	return answer, client.callError(err)
}

// callError keeps nil, and what is an *Error already.
func (c *Client) callError(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	failure := streamError(err)
	if failure.Reason == "" {
		failure.Reason = ReasonStreamLost
	}
	return c.lost(failure)
}

// sequenceNumber is the upstream's, which the typed payloads of most events have.
func sequenceNumber(event *gatewayv1.Event) *int64 {
	message := event.ProtoReflect()
	kind := message.WhichOneof(message.Descriptor().Oneofs().ByName("payload"))
	if kind == nil || kind.Message() == nil {
		return nil
	}
	field := kind.Message().Fields().ByName("sequence_number")
	if field == nil || field.Kind() != protoreflect.Int64Kind {
		return nil
	}
	payload := message.Get(kind).Message()
	if field.HasPresence() && !payload.Has(field) {
		return nil
	}
	number := payload.Get(field).Int()
	return &number
}

func (o CallOptions) proto() *gatewayv1.CallOptions {
	return &gatewayv1.CallOptions{Upstream: o.Upstream, Timeout: limit(o.Timeout)}
}

func limit(timeout time.Duration) *durationpb.Duration {
	if timeout <= 0 {
		return nil
	}
	return durationpb.New(timeout)
}

func payload(rawJSON bool) gatewayv1.PayloadFormat {
	if rawJSON {
		return gatewayv1.PayloadFormat_PAYLOAD_FORMAT_BOTH
	}
	return gatewayv1.PayloadFormat_PAYLOAD_FORMAT_TYPED
}
