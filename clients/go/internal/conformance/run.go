package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// run is one case being run.
type run struct {
	control control
	name    string
	address string
	client  *gateway.Client
	session *gateway.Session
	turns   map[string]*played
	streams map[string]*streamed
	more    []*gateway.Session
	// connecting is answered when the session is there that is opened later.
	connecting chan error
	// logRaises: the logger panics. Set before the client is made.
	logRaises bool

	mu      sync.Mutex
	log     strings.Builder // what the client's logger was told; guarded by mu
	seen    []gateway.Event // notices and refusals, of the session and of turns
	goAways []gateway.GoAway
}

// played is a turn with what was read of it.
type played struct {
	turn   *gateway.Turn
	types  map[string]int
	json   map[string]string
	result *gateway.Result
}

func newRun(control control, name, address string) *run {
	return &run{control: control, name: name, address: address, turns: map[string]*played{}, streams: map[string]*streamed{}}
}

func (r *run) close() {
	for _, session := range r.more {
		_ = session.Close()
	}
	if r.session != nil {
		_ = r.session.Close()
	}
	if r.client != nil {
		_ = r.client.Close()
	}
}

func (r *run) step(ctx context.Context, name string, raw json.RawMessage) error {
	if name == "control" {
		return r.controlStep(ctx, raw)
	}
	if name == "connect" {
		return r.connect(ctx, decode[connectStep](raw))
	}
	if storedSteps[name] {
		return r.stored(ctx, name, decode[storedStep](raw))
	}
	switch name {
	case "close_client":
		return r.client.Close()
	case "connected":
		return r.connected(ctx, decode[struct{ Error *wantedError }](raw).Error)
	}
	if r.session == nil {
		if err := r.connect(ctx, connectStep{Model: "gpt-5.5"}); err != nil {
			return err
		}
	}
	switch name {
	case "start":
		return r.start(ctx, decode[startStep](raw))
	case "fork":
		step := decode[struct{ Lane, To string }](raw)
		r.session.Lane(step.Lane).Fork(step.To)
		return nil
	case "until":
		return r.until(ctx, decode[untilStep](raw))
	case "final":
		step := decode[finalStep](raw)
		played, err := r.played(step.Turn)
		if err != nil {
			return err
		}
		failure := r.readAll(ctx, played, step.ResultOnly)
		return step.compare(played, failure)
	case "steer":
		return r.steer(ctx, decode[steerStep](raw))
	case "connect_more":
		for range decode[struct{ Count int }](raw).Count {
			session, err := r.client.Connect(ctx)
			if err != nil {
				return err
			}
			r.more = append(r.more, session)
		}
		return nil
	case "second_reader":
		return r.secondReader(ctx, decode[struct {
			Turn  string
			Error *wantedError
		}](raw))
	case "dropped_reader":
		played, err := r.played(decode[struct{ Turn string }](raw).Turn)
		if err != nil {
			return err
		}
		for _, err := range played.turn.Events(ctx) {
			return err
		}
		return errors.New("the turn has no more events")
	case "closed":
		select {
		case <-r.session.Done():
			return r.session.Err()
		case <-ctx.Done():
			return errors.New("the session is not over")
		}
	case "reported":
		text := decode[struct{ Text string }](raw).Text
		return poll(ctx, func() error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if !strings.Contains(r.log.String(), text) {
				return fmt.Errorf("it was not reported: %s", r.log.String())
			}
			return nil
		})
	case "parse":
		return r.parse(ctx, decode[parseStep](raw))
	case "run":
		step := decode[struct {
			finalStep
			Input json.RawMessage
		}](raw)
		input, err := r.input(step.Input)
		if err != nil {
			return err
		}
		result, err := gateway.RetrySafe(ctx, 0, func() (*gateway.Result, error) {
			turn, err := r.session.Start(ctx, gateway.Request{Input: input})
			if err != nil {
				return nil, err
			}
			return turn.Final(ctx)
		})
		return step.compare(&played{result: result}, err)
	case "cancel":
		return r.turns[decode[struct{ Turn string }](raw).Turn].turn.Cancel()
	case "tools":
		return r.tools(ctx, decode[toolsStep](raw))
	case "notice":
		step := decode[struct{ Kind, Reason string }](raw)
		return r.wait(ctx, 1, func(event gateway.Event) bool {
			notice := event.Notice()
			return notice.GetKind() == step.Kind && (step.Reason == "" || notice.GetReason() == step.Reason)
		})
	case "rejected":
		step := decode[struct {
			Reason string
			Count  int
		}](raw)
		return r.wait(ctx, step.Count, func(event gateway.Event) bool {
			return event.Type() == "gateway.request.rejected" && event.Failure().Reason == step.Reason
		})
	case "go_away":
		return r.waitForGoAway(ctx, decode[struct{ Draining bool }](raw).Draining)
	case "session_over":
		select {
		case <-r.session.Done():
		case <-ctx.Done():
			return errors.New("the session is not over")
		}
		if reason := decode[struct{ Reason string }](raw).Reason; !gateway.HasReason(r.session.Err(), reason) {
			return fmt.Errorf("the session is over for %v", r.session.Err())
		}
		return nil
	case "stats":
		return r.stats(ctx, decode[statsStep](raw))
	case "close":
		return r.session.Close()
	default:
		return fmt.Errorf("no such step")
	}
}

// controlStep also waits until the client has noticed that its connection is gone.
func (r *run) controlStep(ctx context.Context, action json.RawMessage) error {
	if err := r.control.call("POST", "/control", map[string]any{"case": r.name, "action": action}, &struct{}{}); err != nil {
		return err
	}
	if r.session == nil || !decode[struct {
		Block bool `json:"block_clients"`
	}](action).Block {
		return nil
	}
	return poll(ctx, func() error {
		if r.session.Stats().Connected {
			return errors.New("the client is still connected")
		}
		return nil
	})
}

type weather struct {
	City    string  `json:"city"`
	Celsius float64 `json:"celsius"`
}

type parseStep struct {
	finalStep
	Input  json.RawMessage `json:"input"`
	Parsed *weather        `json:"parsed"`
	Unfit  bool            `json:"unfit"`
}

func (r *run) parse(ctx context.Context, step parseStep) error {
	input, err := r.input(step.Input)
	if err != nil {
		return err
	}
	turn, err := r.session.Start(ctx, gateway.Request{Input: input, Format: gateway.FormatOf[weather]("")})
	if err != nil {
		return err
	}
	result, err := turn.Final(ctx)
	parsed := gateway.Parse[weather](result)
	if (parsed.Value == nil) != (step.Parsed == nil) || (step.Parsed != nil && *parsed.Value != *step.Parsed) {
		return fmt.Errorf("parsed %+v", parsed.Value)
	}
	if (parsed.Err != nil) != step.Unfit {
		return fmt.Errorf("unfit: %v", parsed.Err)
	}
	return step.compare(&played{result: result}, err)
}

type budget struct {
	Tokens uint64 `json:"tokens"`
	Money  string `json:"money"`
	Turns  uint32 `json:"turns"`
}

type connectStep struct {
	Model       string       `json:"model"`
	Token       string       `json:"token"`
	Upstream    string       `json:"upstream"`
	RawJSON     bool         `json:"raw_json"`
	Resume      *bool        `json:"resume"`
	Recovery    *bool        `json:"recovery"`
	MaxBuffered int64        `json:"max_buffered_bytes"`
	MaxQueued   int64        `json:"max_queued_bytes"`
	TimeoutMs   int          `json:"timeout_ms"`
	HeartbeatMs *int         `json:"heartbeat_ms"`
	Budget      *budget      `json:"budget"`
	Callbacks   string       `json:"callbacks"`
	TokenSource []string     `json:"token_source"`
	CloseMs     int          `json:"close_timeout_ms"`
	Later       bool         `json:"later"`
	Logger      string       `json:"logger"`
	Error       *wantedError `json:"error"`
}

func (r *run) connected(ctx context.Context, wanted *wantedError) error {
	select {
	case err := <-r.connecting:
		return wanted.compare(err)
	case <-ctx.Done():
		return errors.New("it still connects")
	}
}

// Write makes the run the output of the client's logger.
func (r *run) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.log.Write(line)
	if r.logRaises {
		panic("a bug in the logger")
	}
	return n, err
}

// tokenSource does what the plan says, at its end the last thing again and again.
func tokenSource(plan []string) func(context.Context) (string, error) {
	var mu sync.Mutex
	return func(ctx context.Context) (string, error) {
		mu.Lock()
		todo := plan[0]
		if len(plan) > 1 {
			plan = plan[1:]
		}
		mu.Unlock()
		switch todo {
		case "raise":
			panic("no token")
		case "hang":
			<-ctx.Done()
			return "", ctx.Err()
		case "broken":
			return "to\nken", nil
		default:
			return "token", nil
		}
	}
}

func (r *run) connect(ctx context.Context, step connectStep) error {
	r.logRaises = step.Logger == "raise"
	options := []gateway.ClientOption{
		gateway.WithAddress(r.address), gateway.WithLogger(slog.New(slog.NewTextHandler(r, nil))),
	}
	if step.TokenSource != nil {
		options = append(options, gateway.WithTokenSource(tokenSource(step.TokenSource)))
	}
	if step.Token != "" {
		options = append(options, gateway.WithToken(step.Token))
	}
	client, err := gateway.NewClient(options...)
	if err != nil {
		return err
	}
	r.client = client
	session := []gateway.SessionOption{
		gateway.WithModel(step.Model), gateway.WithUpstream(step.Upstream), gateway.WithProgram("conformance", "1"),
		gateway.WithOnEvent(func(event gateway.Event) {
			r.saw(event)
			switch step.Callbacks {
			case "raise":
				panic("a bug in a callback")
			case "close":
				_ = r.session.Close()
			}
		}),
		gateway.WithOnGoAway(func(goAway gateway.GoAway) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.goAways = append(r.goAways, goAway)
		}),
	}
	if step.HeartbeatMs != nil {
		session = append(session, gateway.WithHeartbeat(time.Duration(*step.HeartbeatMs)*time.Millisecond))
	}
	if step.Budget != nil {
		session = append(session, gateway.WithBudget(gateway.Budget(*step.Budget)))
	}
	if step.RawJSON {
		session = append(session, gateway.WithRawJSON())
	}
	if step.Resume != nil && !*step.Resume {
		session = append(session, gateway.WithoutResume())
	}
	if step.Recovery != nil && !*step.Recovery {
		session = append(session, gateway.WithoutRecovery())
	}
	if step.MaxQueued > 0 {
		session = append(session, gateway.WithMaxQueuedBytes(step.MaxQueued))
	}
	if step.TimeoutMs > 0 {
		session = append(session, gateway.WithConnectTimeout(time.Duration(step.TimeoutMs)*time.Millisecond))
	}
	if step.MaxBuffered > 0 {
		session = append(session, gateway.WithMaxBufferedBytes(step.MaxBuffered))
	}
	if step.CloseMs > 0 {
		session = append(session, gateway.WithCloseTimeout(time.Duration(step.CloseMs)*time.Millisecond))
	}
	if step.Later {
		r.connecting = make(chan error, 1)
		go func() {
			var err error
			// Longer than the step.
			r.session, err = client.Connect(context.WithoutCancel(ctx), session...)
			r.connecting <- err
		}()
		return nil
	}
	r.session, err = client.Connect(ctx, session...)
	return step.Error.compare(err)
}

type startStep struct {
	Turn            string          `json:"turn"`
	Lane            string          `json:"lane"`
	Input           json.RawMessage `json:"input"`
	Instructions    string          `json:"instructions"`
	Model           string          `json:"model"`
	Tools           []string        `json:"tools"`
	Store           *bool           `json:"store"`
	Temperature     *float64        `json:"temperature"`
	MaxOutputTokens *int32          `json:"max_output_tokens"`
	ExtraJSON       string          `json:"extra_json"`
	From            string          `json:"from"`
	NewConversation bool            `json:"new_conversation"`
	FullHistory     bool            `json:"full_history"`
	TimeoutMs       int             `json:"timeout_ms"`
	WaitOnRateLimit bool            `json:"wait_on_rate_limit"`
	WarmUp          bool            `json:"warm_up"`
	TurnID          string          `json:"turn_id"`
	Options         options         `json:"options"`
	Error           *wantedError    `json:"error"`
}

type options struct {
	Effort          string            `json:"effort"`
	Verbosity       string            `json:"verbosity"`
	Temperature     *float64          `json:"temperature"`
	MaxOutputTokens int               `json:"max_output_tokens"`
	Include         []string          `json:"include"`
	Metadata        map[string]string `json:"metadata"`
	CacheKey        string            `json:"cache_key"`
	Tools           []json.RawMessage `json:"tools"`
	ToolChoice      string            `json:"tool_choice"`
}

func (r *run) start(ctx context.Context, step startStep) error {
	input, err := r.input(step.Input)
	if err != nil {
		return err
	}
	request := gateway.Request{
		Input: input, Instructions: step.Instructions, Model: step.Model, Store: step.Store,
		NewConversation: step.NewConversation, FullHistory: step.FullHistory, From: step.From,
		Timeout: time.Duration(step.TimeoutMs) * time.Millisecond, WaitOnRateLimit: step.WaitOnRateLimit,
		TurnID: step.TurnID,
		Effort: step.Options.Effort, Verbosity: step.Options.Verbosity, Temperature: step.Options.Temperature,
		MaxOutputTokens: step.Options.MaxOutputTokens, Include: step.Options.Include, Metadata: step.Options.Metadata,
		CacheKey: step.Options.CacheKey, ToolChoice: step.Options.ToolChoice,
		Create: &gatewayv1.CreateBody{
			Temperature: step.Temperature, MaxOutputTokens: step.MaxOutputTokens, ExtraJson: []byte(step.ExtraJSON),
		},
	}
	if from := r.turns[step.From]; from != nil {
		request.From = from.result.ResponseID()
	}
	request.Tools = specs(step.Tools)
	for _, tool := range step.Options.Tools {
		request.Tools = append(request.Tools, gateway.JSONTool(string(tool)))
	}
	lane := r.session.Lane(step.Lane)
	begin := lane.Start
	if step.WarmUp {
		begin = lane.WarmUp
	}
	turn, err := begin(ctx, request)
	if err == nil {
		r.turns[step.Turn] = newPlayed(turn)
	}
	return step.Error.compare(err)
}

func specs(names []string) (tools []*gatewayv1.Tool) {
	for _, name := range names {
		tools = append(tools, &gatewayv1.Tool{Kind: &gatewayv1.Tool_Function{Function: &gatewayv1.FunctionTool{
			Name: name, Parameters: []byte(`{"type":"object","properties":{"query":{"type":"string"}}}`), Strict: proto.Bool(false),
		}}})
	}
	return tools
}

func newPlayed(turn *gateway.Turn) *played {
	return &played{turn: turn, types: map[string]int{}, json: map[string]string{}}
}

func (r *run) input(raw json.RawMessage) ([]*gateway.Item, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return gateway.Text(text), nil
	}
	var long struct {
		Repeat string
		Times  int
	}
	if json.Unmarshal(raw, &long) == nil {
		return gateway.Text(strings.Repeat(long.Repeat, long.Times)), nil
	}
	var parts []struct {
		Role, Text string
		AnswerOf   string          `json:"answer_of"`
		CallID     string          `json:"call_id"`
		Output     string          `json:"output"`
		JSON       json.RawMessage `json:"json"`
		Parts      []json.RawMessage
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return nil, err
	}
	var items []*gateway.Item
	for _, part := range parts {
		switch {
		case part.AnswerOf != "":
			items = append(items, gateway.Message("assistant", r.turns[part.AnswerOf].result.Text()))
		case part.CallID != "":
			items = append(items, gateway.CallOutput(part.CallID, part.Output))
		case part.JSON != nil:
			items = append(items, gateway.JSONItem(part.JSON))
		case part.Parts != nil:
			var parts []*gateway.Part
			for _, raw := range part.Parts {
				var text string
				if json.Unmarshal(raw, &text) == nil {
					parts = append(parts, gateway.TextPart(text))
				} else {
					parts = append(parts, gateway.ImageURL(decode[struct {
						URL string `json:"image_url"`
					}](raw).URL))
				}
			}
			items = append(items, gateway.MessageOf(part.Role, parts...))
		default:
			items = append(items, gateway.Message(part.Role, part.Text))
		}
	}
	return items, nil
}

type untilStep struct {
	Turn, Type string
	Count      int
	Error      *wantedError
}

type steerStep struct {
	Turn, Lane string
	Text       json.RawMessage
	TimeoutMs  int  `json:"timeout_ms"`
	TimedOut   bool `json:"timed_out"`
}

func (r *run) steer(ctx context.Context, step steerStep) error {
	input, err := r.input(step.Text)
	if err != nil {
		return err
	}
	if step.TimeoutMs > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(step.TimeoutMs)*time.Millisecond)
		defer cancel()
	}
	if step.Turn == "" {
		err = r.session.Lane(step.Lane).Steer(ctx, input)
	} else {
		err = r.turns[step.Turn].turn.Steer(ctx, input)
	}
	if step.TimedOut {
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("ended with %v", err)
		}
		return nil
	}
	return err
}

func (r *run) secondReader(ctx context.Context, step struct {
	Turn  string
	Error *wantedError
}) error {
	played, err := r.played(step.Turn)
	if err != nil {
		return err
	}
	first, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for err := gateway.ErrTurnBusy; errors.Is(err, gateway.ErrTurnBusy); {
			_, err = played.turn.Final(first)
		}
	}()
	defer func() { cancel(); <-ended }()
	return poll(ctx, func() error {
		// Until the first has begun, this one waits itself.
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err := played.turn.Final(short)
		return step.Error.compare(err)
	})
}

func (r *run) until(ctx context.Context, step untilStep) error {
	played, err := r.played(step.Turn)
	if err != nil {
		return err
	}
	left := max(step.Count, 1)
	for event, err := range played.turn.Events(ctx) {
		if err != nil {
			return step.Error.compare(err)
		}
		r.note(played, event)
		if event.Type() == step.Type {
			left--
		}
		if left == 0 {
			return nil
		}
		if event.Outcome() != gateway.Running {
			return fmt.Errorf("the turn ended with %s", event.Outcome())
		}
	}
	return errors.New("the turn has no more events")
}

// readAll reads the rest of a turn and its result.
func (r *run) readAll(ctx context.Context, played *played, resultOnly bool) error {
	for event, err := range played.turn.Events(ctx) {
		if resultOnly {
			break
		}
		if err != nil {
			break // Final says it again.
		}
		r.note(played, event)
	}
	var err error
	played.result, err = played.turn.Final(ctx)
	return err
}

func (r *run) note(played *played, event gateway.Event) {
	played.types[event.Type()]++
	if json := event.JSON(); len(json) > 0 && len(json) < 1<<16 {
		played.json[event.Type()] = string(json)
	}
	if event.Notice() != nil || event.Type() == "gateway.request.rejected" {
		r.saw(event)
	}
}

type toolsStep struct {
	finalStep
	Lane           string              `json:"lane"`
	Input          json.RawMessage     `json:"input"`
	Functions      map[string]function `json:"functions"`
	MaxTurns       int                 `json:"max_turns"`
	Calls          *int32              `json:"calls"`
	LimitReached   bool                `json:"limit_reached"`
	MaxTimeMs      int                 `json:"max_time_ms"`
	MaxTokens      int64               `json:"max_tokens"`
	ToolTimeoutMs  int                 `json:"tool_timeout_ms"`
	MaxConcurrency int                 `json:"max_concurrency"`
	Deny           []string            `json:"deny"`
	CreateTools    []string            `json:"create_tools"`
	LeaveAfter     int                 `json:"leave_after"`
	ByTurn         bool                `json:"by_turn"`
	MaxCost        float64             `json:"max_cost"`
	RaiseIn        []string            `json:"raise_in"`
	Raises         bool                `json:"raises"`
	CancelInCall   bool                `json:"cancel_in_call"`
}

type function struct {
	Result, Error, Crash, Close string
	Hang                        bool
	Bytes                       int
}

func (f function) run(ctx context.Context, r *run) (string, error) {
	switch {
	case f.Close == "session":
		return "", r.session.Close()
	case f.Close == "client":
		return "", r.client.Close()
	case f.Crash != "":
		panic(f.Crash)
	case f.Hang:
		<-ctx.Done()
		return "", ctx.Err()
	case f.Error != "":
		return "", errors.New(f.Error)
	case f.Bytes > 0:
		return strings.Repeat("x", f.Bytes), nil
	default:
		return f.Result, nil
	}
}

func (r *run) tools(ctx context.Context, step toolsStep) error {
	input, err := r.input(step.Input)
	if err != nil {
		return err
	}
	var made, running, most atomic.Int32
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bug := func(hook string) {
		if slices.Contains(step.RaiseIn, hook) {
			panic("a bug in a hook")
		}
	}
	tools := gateway.Tools{
		MaxCost: step.MaxCost,
		Cost: func(result *gateway.Result) float64 {
			bug("price")
			return float64(result.Usage().TotalTokens)
		},
		OnCall:   func(context.Context, gateway.CallReport) { bug("on_call") },
		MaxTurns: step.MaxTurns, MaxDuration: time.Duration(step.MaxTimeMs) * time.Millisecond, MaxTokens: step.MaxTokens,
		CallTimeout: time.Duration(step.ToolTimeoutMs) * time.Millisecond, MaxConcurrency: step.MaxConcurrency,
		Approve: func(_ context.Context, call gateway.Call) error {
			bug("approve")
			if slices.Contains(step.Deny, call.Name) {
				return gateway.ErrDenied
			}
			return nil
		},
	}
	type arguments struct {
		Query string `json:"query"`
	}
	for name, does := range step.Functions {
		tools.Functions = append(tools.Functions, gateway.Func(name, "For a test", func(ctx context.Context, _ arguments) (string, error) {
			made.Add(1)
			if now := running.Add(1); now > most.Load() {
				most.Store(now)
			}
			defer running.Add(-1)
			if step.CancelInCall {
				cancel()
			}
			return does.run(ctx, r)
		}))
	}
	request := gateway.Request{Input: input}
	if step.CreateTools != nil {
		request.Create = &gatewayv1.CreateBody{Tools: specs(step.CreateTools)}
	}
	lane := r.session.Lane(step.Lane)
	var result *gateway.Result
	var failure error
	raised := func() (raised any) {
		defer func() { raised = recover() }()
		if step.LeaveAfter > 0 || step.ByTurn {
			failure = r.leave(ctx, lane.ToolTurns(ctx, request, tools), step.LeaveAfter)
		} else {
			result, failure = lane.RunTools(ctx, request, tools)
		}
		return nil
	}()
	if (raised != nil) != step.Raises {
		return fmt.Errorf("raised %v", raised)
	}
	if step.Calls != nil && made.Load() != *step.Calls {
		return fmt.Errorf("%d calls instead of %d (%v)", made.Load(), *step.Calls, failure)
	}
	if limit := int32(step.MaxConcurrency); limit > 0 && most.Load() > limit {
		return fmt.Errorf("%d calls at the same time", most.Load())
	}
	switch {
	case step.Raises:
		return nil
	case step.LeaveAfter > 0:
		return failure
	case step.CancelInCall:
		if !errors.Is(failure, context.Canceled) {
			return fmt.Errorf("ended with %v, not cancelled", failure)
		}
		return nil
	case step.LimitReached:
		if !errors.Is(failure, gateway.ErrTurnLimit) {
			return fmt.Errorf("ended with %v, not at the limit", failure)
		}
		return nil
	case step.Error != nil:
		return step.Error.compare(failure)
	}
	return step.compare(&played{result: result}, failure)
}

// leave reads turn by turn, and leaves the loop after the first event of this turn; 0: it does not.
func (r *run) leave(ctx context.Context, turns iter.Seq2[*gateway.Turn, error], after int) error {
	number := 0
	for turn, err := range turns {
		if err != nil {
			return err
		}
		number++
		if after == 0 {
			// Errors of the turn are the loop's as well.
			for range turn.Events(ctx) {
			}
			continue
		}
		for _, err := range turn.Events(ctx) {
			if err != nil {
				return err
			}
			if number == after {
				return nil
			}
		}
	}
	if after == 0 {
		return nil
	}
	return fmt.Errorf("the loop ended after %d turns", number)
}

func (r *run) played(name string) (*played, error) {
	played := r.turns[name]
	if played == nil {
		return nil, fmt.Errorf("no turn %q was started", name)
	}
	return played, nil
}

func (r *run) saw(event gateway.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, event)
}

func (r *run) wait(ctx context.Context, count int, fits func(gateway.Event) bool) error {
	return poll(ctx, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		missing := max(count, 1)
		for _, event := range r.seen {
			if fits(event) {
				missing--
			}
		}
		if missing <= 0 {
			return nil
		}
		return fmt.Errorf("it did not come, of %d", len(r.seen))
	})
}

func (r *run) waitForGoAway(ctx context.Context, draining bool) error {
	return poll(ctx, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, goAway := range r.goAways {
			if goAway.Draining == draining {
				return nil
			}
		}
		return errors.New("it did not come")
	})
}

type statsStep struct {
	Resumes           *int   `json:"resumes"`
	ResumesAtMost     *int   `json:"resumes_at_most"`
	Buffered          *int64 `json:"buffered"`
	Running           *int   `json:"running"`
	MaxBufferedAtMost *int64 `json:"max_buffered_at_most"`
}

func (r *run) stats(ctx context.Context, step statsStep) error {
	return poll(ctx, func() error {
		stats := r.session.Stats()
		switch {
		case step.Resumes != nil && stats.Resumes != *step.Resumes:
			return fmt.Errorf("%d resumes", stats.Resumes)
		case step.ResumesAtMost != nil && stats.Resumes > *step.ResumesAtMost:
			return fmt.Errorf("%d resumes", stats.Resumes)
		case step.Buffered != nil && stats.BufferedBytes != *step.Buffered:
			return fmt.Errorf("%d bytes are buffered", stats.BufferedBytes)
		case step.Running != nil && stats.RunningTurns != *step.Running:
			return fmt.Errorf("%d turns run", stats.RunningTurns)
		case step.MaxBufferedAtMost != nil && stats.MaxBufferedBytes > *step.MaxBufferedAtMost:
			return fmt.Errorf("%d bytes were buffered", stats.MaxBufferedBytes)
		}
		return nil
	})
}

func poll(ctx context.Context, test func() error) error {
	for {
		err := test()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func decode[T any](raw json.RawMessage) (value T) {
	if err := json.Unmarshal(raw, &value); err != nil {
		panic(fmt.Sprintf("%v in %s", err, raw))
	}
	return value
}
