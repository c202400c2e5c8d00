package gateway

import (
	"testing"
	"time"

	"google.golang.org/grpc"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// responder answers turns without a session.
type responder struct {
	gatewayv1.UnimplementedResponsesServiceServer
	events []*gatewayv1.Event
	asked  *gatewayv1.CreateResponseRequest
}

func (r *responder) CreateResponse(
	request *gatewayv1.CreateResponseRequest, stream grpc.ServerStreamingServer[gatewayv1.CreateResponseResponse],
) error {
	r.asked = request
	return stream.Send(&gatewayv1.CreateResponseResponse{Events: r.events})
}

func TestOneResponse(t *testing.T) {
	service := &responder{events: []*gatewayv1.Event{
		{Payload: &gatewayv1.Event_OutputTextDelta{OutputTextDelta: &gatewayv1.OutputTextDelta{SequenceNumber: 7}}},
		// Of no response, and so without a number.
		{Payload: &gatewayv1.Event_Error{Error: &gatewayv1.ErrorEvent{Code: Ptr("server_error")}}},
		{Outcome: gatewayv1.TurnOutcome_TURN_OUTCOME_COMPLETED},
	}}
	client := clientOf(t, service)
	options := CreateOptions{CallOptions: CallOptions{Timeout: time.Second}}
	stream := client.Responses().Create(testContext(t), Request{Timeout: time.Minute}, options)
	defer stream.Close()
	if _, err := stream.Final(); err != nil {
		t.Fatal(err)
	}
	if last := stream.LastSequenceNumber(); last == nil || *last != 7 {
		t.Errorf("last sequence number %v, want 7", last)
	}
	if timeout := service.asked.GetTimeout().AsDuration(); timeout != time.Second {
		t.Errorf("timeout %v, want that of the call's options", timeout)
	}
}
