package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Request says what a turn runs. The zero value continues the lane with no new input.
type Request struct {
	// Input is what is new since the lane's last response; everything, with FullHistory.
	Input []*Item
	// Model; "" means the session's.
	Model string
	// Instructions are the system message. They are not inherited: give them with each turn.
	Instructions string
	// Tools that the model may call, without a loop that calls them: see [Lane.RunTools]. Not inherited either.
	Tools []*ToolSpec
	// ToolChoice is "auto" (the upstream's default), "none", "required", or the name of a function. In a tool loop it
	// counts for the first turn.
	ToolChoice string
	// ParallelToolCalls says whether several tools may be called at once. Nil: the upstream's default, true.
	ParallelToolCalls *bool
	// Effort of reasoning models: "minimal", "low", "medium", "high" …
	Effort string
	// ReasoningSummary: "auto", "concise" or "detailed". "": none.
	ReasoningSummary string
	// Temperature, 0 to 2. Nil: the upstream's default, 1.
	Temperature *float64
	// TopP, 0 to 1. Nil: the upstream's default, 1.
	TopP *float64
	// MaxOutputTokens, reasoning included; at least 16. 0: no limit of its own.
	MaxOutputTokens int
	// Format of the text; see [FormatOf] and [Parse]. Nil: plain text.
	Format *Format
	// Verbosity: "low", "medium" or "high".
	Verbosity string
	// Include asks for more output, for instance "reasoning.encrypted_content".
	Include []string
	// Metadata are labels stored with the response: at most 16.
	Metadata map[string]string
	// CacheKey groups requests with a common beginning, to hit the prompt cache more often.
	CacheKey string
	// SafetyIdentifier is a stable, hashed identity of the end user.
	SafetyIdentifier string
	// ServiceTier: "auto", "default", "flex", "priority" …
	ServiceTier string
	// Extra are members of the upstream's request that have no field here.
	Extra map[string]any
	// Store says whether the upstream keeps the response. Nil: its default, true.
	Store *bool
	// Create is the upstream's request as the generated message; the fields above are put over it. It is not changed.
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

func (r Request) startTurn(laneID, turnID string, trace *gatewayv1.TraceContext) *gatewayv1.StartTurn {
	start := &gatewayv1.StartTurn{
		LaneId:          laneID,
		TurnId:          turnID,
		Create:          r.body(),
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

// single is the body of a turn without a session.
func (r Request) single() *gatewayv1.CreateBody {
	create := r.body()
	put(&create.PreviousResponseId, r.From)
	return create
}

func (r Request) body() *gatewayv1.CreateBody {
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
	if r.Include != nil {
		create.Include = r.Include
	}
	if r.Metadata != nil {
		create.Metadata = r.Metadata
	}
	put(&create.Model, r.Model)
	put(&create.Instructions, r.Instructions)
	put(&create.PromptCacheKey, r.CacheKey)
	put(&create.SafetyIdentifier, r.SafetyIdentifier)
	put(&create.ServiceTier, r.ServiceTier)
	putPtr(&create.Store, r.Store)
	putPtr(&create.ParallelToolCalls, r.ParallelToolCalls)
	putPtr(&create.Temperature, r.Temperature)
	putPtr(&create.TopP, r.TopP)
	put(&create.MaxOutputTokens, int32(min(r.MaxOutputTokens, math.MaxInt32)))
	if r.Effort != "" || r.ReasoningSummary != "" {
		if create.Reasoning == nil {
			create.Reasoning = &gatewayv1.Reasoning{}
		}
		put(&create.Reasoning.Effort, r.Effort)
		put(&create.Reasoning.Summary, r.ReasoningSummary)
	}
	if r.Format != nil || r.Verbosity != "" {
		if create.Text == nil {
			create.Text = &gatewayv1.TextOptions{}
		}
		put(&create.Text.Verbosity, r.Verbosity)
		if r.Format != nil {
			create.Text.Format = r.Format.pb
		}
	}
	if r.ToolChoice != "" {
		create.ToolChoice = toolChoice(r.ToolChoice)
	}
	return create
}

func toolChoice(choice string) *gatewayv1.ToolChoice {
	switch choice {
	case "auto", "none", "required":
		return &gatewayv1.ToolChoice{Kind: &gatewayv1.ToolChoice_Mode{Mode: choice}}
	default:
		return &gatewayv1.ToolChoice{Kind: &gatewayv1.ToolChoice_Function{
			Function: &gatewayv1.FunctionChoice{Name: choice},
		}}
	}
}

// withExtra adds Extra to the members that Create already has.
func (r Request) withExtra() (Request, error) {
	if len(r.Extra) == 0 {
		return r, nil
	}
	create := &gatewayv1.CreateBody{}
	if r.Create != nil {
		create = proto.CloneOf(r.Create)
	}
	members := map[string]any{}
	if len(create.ExtraJson) > 0 {
		if err := json.Unmarshal(create.ExtraJson, &members); err != nil {
			return r, fmt.Errorf("gateway: Create.ExtraJson: %w", err)
		}
	}
	maps.Copy(members, r.Extra)
	encoded, err := json.Marshal(members)
	if err != nil {
		return r, fmt.Errorf("gateway: Extra: %w", err)
	}
	create.ExtraJson = encoded
	r.Create, r.Extra = create, nil
	return r, nil
}

func put[T comparable](field **T, value T) {
	var zero T
	if value != zero {
		*field = &value
	}
}

func putPtr[T any](field **T, value *T) {
	if value != nil {
		*field = value
	}
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
