package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
)

const model = "gpt-5.5"

func text(input string) responses.ResponseNewParamsInputUnion {
	return responses.ResponseNewParamsInputUnion{OfString: openai.String(input)}
}

func main() {
	ctx := context.Background()
	client := openai.NewClient()

	// A conversation, streamed.
	stream := client.Responses.NewStreaming(ctx, responses.ResponseNewParams{Model: model, Input: text("Hello")})
	var first string
	for stream.Next() {
		switch event := stream.Current().AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			fmt.Print(event.Delta)
		case responses.ResponseCompletedEvent:
			first = event.Response.ID
		}
	}
	if err := stream.Err(); err != nil {
		log.Fatal(err)
	}
	second, err := client.Responses.New(ctx, responses.ResponseNewParams{
		Model: model, Input: text("And shorter?"), PreviousResponseID: openai.String(first),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("\n" + second.OutputText())

	// A tool loop.
	schema := map[string]any{
		"type":                 "object",
		"properties":           map[string]any{"city": map[string]any{"type": "string"}},
		"required":             []string{"city"},
		"additionalProperties": false,
	}
	tool := responses.ToolParamOfFunction("weather", schema, true)
	tool.OfFunction.Description = openai.String("Weather of a city")
	request := responses.ResponseNewParams{
		Model: model, Input: text("How warm is it in Oslo?"), Tools: []responses.ToolUnionParam{tool},
	}
	for {
		response, err := client.Responses.New(ctx, request)
		if err != nil {
			log.Fatal(err)
		}
		var outputs responses.ResponseInputParam
		for _, item := range response.Output {
			call, ok := item.AsAny().(responses.ResponseFunctionToolCall)
			if !ok {
				continue
			}
			var place struct {
				City string `json:"city"`
			}
			if err := json.Unmarshal([]byte(call.Arguments), &place); err != nil {
				log.Fatal(err)
			}
			answer, err := json.Marshal(map[string]any{"city": place.City, "celsius": 21})
			if err != nil {
				log.Fatal(err)
			}
			output := responses.ResponseInputItemParamOfFunctionCallOutput(string(answer))
			output.OfFunctionCallOutput.CallID = param.NewOpt(call.CallID)
			outputs = append(outputs, output)
		}
		if len(outputs) == 0 {
			fmt.Println(len(response.OutputText()) > 0)
			break
		}
		request.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: outputs}
		request.PreviousResponseID = param.NewOpt(response.ID)
	}

	// A structured answer.
	format := responses.ResponseFormatTextConfigParamOfJSONSchema("place", map[string]any{
		"type":                 "object",
		"properties":           map[string]any{"city": map[string]any{"type": "string"}, "country": map[string]any{"type": "string"}},
		"required":             []string{"city", "country"},
		"additionalProperties": false,
	})
	format.OfJSONSchema.Strict = openai.Bool(true)
	response, err := client.Responses.New(ctx, responses.ResponseNewParams{
		Model: model, Input: text("Where is the opera with the white roof?"),
		Text: responses.ResponseTextConfigParam{Format: format},
	})
	if err != nil {
		log.Fatal(err)
	}
	var place struct {
		City    string `json:"city"`
		Country string `json:"country"`
	}
	fmt.Println(json.Unmarshal([]byte(response.OutputText()), &place) == nil)
}
