package gateway

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Item is one input item.
type Item = gatewayv1.InputItem

// Request says what a turn runs. The zero value continues the lane with no new input.
type Request struct {
	// Input is what is new since the lane's last response; everything, with FullHistory.
	Input []*Item
	// Model; "" means the session's.
	Model string
	// Instructions are the system message. They are not inherited: give them with each turn.
	Instructions string
	// Tools that the model may call. Not inherited either.
	Tools []*gatewayv1.Tool
	// Store says whether the upstream keeps the response. Nil: its default, true.
	Store *bool
	// Create holds everything else of the upstream's request; the fields above are put over it. It is not changed.
	Create *gatewayv1.CreateBody

	// From continues from this response id, of whichever lane: a fork.
	From string
	// NewConversation starts from nothing on this lane.
	NewConversation bool
	// FullHistory: Input is the whole conversation, and the gateway works out what is new.
	FullHistory bool
	// Timeout from acceptance to outcome, kept by the gateway. 0: the gateway's default, usually none.
	Timeout time.Duration
	// WaitOnRateLimit lets the gateway wait and send again when the upstream refuses for its rate limit.
	WaitOnRateLimit bool
	// TurnID, unique in the session, at most 128 visible ASCII characters. Default: chosen by the client.
	TurnID string
}

// Text is an input of one user message.
func Text(text string) []*Item { return []*Item{Message("user", text)} }

// Message is one message of user, assistant, system or developer.
func Message(role, text string) *Item {
	return &Item{Kind: &gatewayv1.InputItem_Message{Message: &gatewayv1.Message{Role: role, Text: &text}}}
}

// CallOutput is the result of a function call.
func CallOutput(callID, output string) *Item {
	return &Item{Kind: &gatewayv1.InputItem_FunctionCallOutput{
		FunctionCallOutput: &gatewayv1.FunctionCallOutput{CallId: &callID, Output: &output},
	}}
}

// JSONItem is an input item as the upstream's JSON, for kinds that this client does not know.
func JSONItem(json []byte) *Item { return &Item{Kind: &gatewayv1.InputItem_Json{Json: json}} }

func (r Request) startTurn(laneID, turnID string, trace *gatewayv1.TraceContext) *gatewayv1.StartTurn {
	create := &gatewayv1.CreateBody{}
	if r.Create != nil {
		create = proto.CloneOf(r.Create)
	}
	if r.Input != nil {
		create.Input = r.Input
	}
	if r.Tools != nil {
		create.Tools = r.Tools
	}
	if r.Model != "" {
		create.Model = &r.Model
	}
	if r.Instructions != "" {
		create.Instructions = &r.Instructions
	}
	if r.Store != nil {
		create.Store = r.Store
	}
	start := &gatewayv1.StartTurn{
		LaneId:          laneID,
		TurnId:          turnID,
		Create:          create,
		TraceContext:    trace,
		WaitOnRateLimit: r.WaitOnRateLimit,
	}
	switch {
	case r.From != "":
		start.Chain = &gatewayv1.StartTurn_PreviousResponseId{PreviousResponseId: r.From}
	case r.NewConversation:
		start.Chain = &gatewayv1.StartTurn_NewConversation{NewConversation: &gatewayv1.NewConversation{}}
	}
	if r.FullHistory {
		start.InputMode = gatewayv1.InputMode_INPUT_MODE_FULL_HISTORY
	}
	if r.Timeout > 0 {
		start.Timeout = durationpb.New(r.Timeout)
	}
	return start
}

func (r Request) warmUp() Request {
	create := &gatewayv1.CreateBody{}
	if r.Create != nil {
		create = proto.CloneOf(r.Create)
	}
	create.Generate = proto.Bool(false)
	r.Create = create
	return r
}
