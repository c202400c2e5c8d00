package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// storedSteps are about turns without a session, and about stored responses.
var storedSteps = map[string]bool{
	"create": true, "follow": true, "get": true, "delete": true, "cancel_response": true, "input_items": true,
	"count": true, "models": true,
}

// streamed is a response with what was read of it.
type streamed struct {
	stream *gateway.ResponseStream
	types  map[string]int
}

type storedStep struct {
	finalStep
	Response       string          `json:"response"`
	Input          json.RawMessage `json:"input"`
	Background     bool            `json:"background"`
	IdempotencyKey string          `json:"idempotency_key"`
	Options        options         `json:"options"`
	Read           int             `json:"read"`

	CloseClientAfter int `json:"close_client_after"`

	AfterLast bool     `json:"after_last"`
	Together  bool     `json:"together"`
	Status    string   `json:"status"`
	Limit     int      `json:"limit"`
	Order     string   `json:"order"`
	Texts     []string `json:"texts"`
	AtLeast   int64    `json:"at_least"`
	IDs       []string `json:"ids"`
}

func (r *run) stored(ctx context.Context, name string, step storedStep) error {
	if r.client == nil {
		client, err := gateway.NewClient(gateway.WithAddress(r.address))
		if err != nil {
			return err
		}
		r.client = client
	}
	responses, id, known := r.client.Responses(), step.Response, r.streams[step.Response]
	if known != nil {
		id = known.stream.SoFar().ResponseID()
	}
	switch name {
	case "create":
		input, err := r.input(step.Input)
		if err != nil {
			return err
		}
		stream := responses.Create(ctx, gateway.Request{
			Input: input, Model: "gpt-5.5", Temperature: step.Options.Temperature,
			Create: &gatewayv1.CreateBody{Background: &step.Background},
		}, gateway.CreateOptions{IdempotencyKey: step.IdempotencyKey})
		found := &streamed{stream, map[string]int{}}
		r.streams[step.Response] = found
		return step.read(found, r.client)
	case "follow":
		var options gateway.StreamOptions
		types := map[string]int{}
		if step.AfterLast {
			options.StartingAfter = known.stream.LastSequenceNumber()
		}
		if step.Together {
			types = maps.Clone(known.types)
		}
		return step.read(&streamed{responses.Stream(ctx, id, options), types}, r.client)
	case "get":
		response, err := responses.Get(ctx, id, gateway.GetOptions{})
		if err != nil || step.Error != nil {
			return step.Error.compare(err)
		}
		if step.Text != nil {
			text := response.GetOutput()[0].GetMessage().GetContent()[0].GetOutputText().GetText()
			if text != *step.Text {
				return fmt.Errorf("text %q", text)
			}
		}
		return step.compareStatus(response)
	case "delete":
		return step.Error.compare(responses.Delete(ctx, id, gateway.CallOptions{}))
	case "cancel_response":
		response, err := responses.Cancel(ctx, id, gateway.CallOptions{})
		if err != nil || step.Error != nil {
			return step.Error.compare(err)
		}
		return step.compareStatus(response)
	case "input_items":
		var texts []string
		for item, err := range responses.InputItems(ctx, id, gateway.ListOptions{Limit: step.Limit, Order: step.Order}) {
			if err != nil {
				return step.Error.compare(err)
			}
			text := item.GetMessage().GetText()
			if parts := item.GetMessage().GetContent(); len(parts) > 0 {
				text = parts[0].GetInputText().GetText()
			}
			texts = append(texts, text)
		}
		return same("texts", step.Texts, texts)
	case "count":
		input, err := r.input(step.Input)
		if err != nil {
			return err
		}
		count, err := responses.CountInputTokens(ctx, gateway.Request{Model: "gpt-5.5", Input: input}, gateway.CallOptions{})
		if err == nil && count < step.AtLeast {
			return fmt.Errorf("%d tokens", count)
		}
		return err
	default:
		models, err := responses.Models(ctx, gateway.CallOptions{})
		var ids []string
		for _, model := range models {
			ids = append(ids, model.GetId())
		}
		return errors.Join(err, same("models", step.IDs, ids))
	}
}

func (s storedStep) read(found *streamed, client *gateway.Client) error {
	number := 0
	for event, err := range found.stream.Events() {
		if err != nil {
			break // Final says it again.
		}
		number++
		found.types[event.Type()]++
		if number == s.Read {
			found.stream.Close()
			return nil
		}
		if number == s.CloseClientAfter {
			if err := client.Close(); err != nil {
				return err
			}
		}
	}
	result, err := found.stream.Final()
	return s.compare(&played{result: result, types: found.types}, err)
}

func (s storedStep) compareStatus(response *gatewayv1.Response) error {
	if response.GetStatus() != s.Status {
		return fmt.Errorf("status %q", response.GetStatus())
	}
	return nil
}

func same(what string, wanted, found []string) error {
	if !slices.Equal(wanted, found) {
		return fmt.Errorf("%s %q instead of %q", what, found, wanted)
	}
	return nil
}
