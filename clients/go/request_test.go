package gateway

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

type forecast struct {
	City    string   `json:"city"`
	Celsius float64  `json:"celsius"`
	Notes   []string `json:"notes"`
}

func TestPlainOptionsBecomeTheUpstreamsRequest(t *testing.T) {
	request := Request{
		Input: []*Item{MessageOf("user", TextPart("what is this?"), ImageURL("https://example.com/a.png"),
			ImageData("image/png", []byte{1, 2}), FileData("a.pdf", "application/pdf", []byte{3}), FileID("file_1"))},
		Instructions: "Be brief.", Model: "m", Store: Ptr(false), Effort: "low", ReasoningSummary: "auto",
		Temperature: Ptr(0.0), TopP: Ptr(0.5), MaxOutputTokens: 100, Format: FormatOf[forecast](""), Verbosity: "low",
		Include: []string{"reasoning.encrypted_content"}, Metadata: map[string]string{"job": "1"}, CacheKey: "k",
		SafetyIdentifier: "u", ServiceTier: "flex", ToolChoice: "weather", ParallelToolCalls: Ptr(false),
		Tools: []*ToolSpec{JSONTool(`{"type":"web_search"}`)}, Extra: map[string]any{"new_member": 1},
		Create: &gatewayv1.CreateBody{TopLogprobs: proto.Int32(3), ExtraJson: []byte(`{"old":true}`)},
	}
	filled, err := request.withExtra()
	if err != nil {
		t.Fatal(err)
	}
	want := &gatewayv1.CreateBody{}
	// Extra and Create are put together; 0 is a temperature like any other.
	err = protojson.Unmarshal([]byte(`{
		"model":"m","instructions":"Be brief.","store":false,"temperature":0,"topP":0.5,"maxOutputTokens":100,"topLogprobs":3,
		"input":[{"message":{"role":"user","content":[
			{"inputText":{"text":"what is this?"}},{"inputImage":{"imageUrl":"https://example.com/a.png"}},
			{"inputImage":{"imageUrl":"data:image/png;base64,AQI="}},
			{"inputFile":{"filename":"a.pdf","fileData":"data:application/pdf;base64,Aw=="}},{"inputFile":{"fileId":"file_1"}}]}}],
		"reasoning":{"effort":"low","summary":"auto"},"include":["reasoning.encrypted_content"],"metadata":{"job":"1"},
		"promptCacheKey":"k","safetyIdentifier":"u","serviceTier":"flex","parallelToolCalls":false,
		"toolChoice":{"function":{"name":"weather"}},"tools":[{"json":"eyJ0eXBlIjoid2ViX3NlYXJjaCJ9"}],
		"text":{"verbosity":"low","format":{"jsonSchema":{"name":"forecast","strict":true}}}
	}`), want)
	if err != nil {
		t.Fatal(err)
	}
	want.ExtraJson = []byte(`{"new_member":1,"old":true}`)
	want.Text.Format.GetJsonSchema().Schema = []byte(`{"type":"object","properties":{"city":{"type":"string"},` +
		`"celsius":{"type":"number"},"notes":{"type":"array","items":{"type":"string"}}},` +
		`"required":["city","celsius","notes"],"additionalProperties":false}`)
	if got := filled.body(); !proto.Equal(got, want) {
		t.Fatalf("%v\ninstead of\n%v", got, want)
	}
	if string(request.Create.GetExtraJson()) != `{"old":true}` {
		t.Fatal("the caller's message was changed")
	}
}

func TestParseKeepsWhatDoesNotFit(t *testing.T) {
	message := func(parts ...*gatewayv1.ContentPart) *Result {
		return &Result{Outcome: Completed, Items: []*gatewayv1.OutputItem{{Kind: &gatewayv1.OutputItem_Message{
			Message: &gatewayv1.Message{Role: "assistant", Content: parts},
		}}}}
	}
	text := func(text string) *gatewayv1.ContentPart {
		return &gatewayv1.ContentPart{Kind: &gatewayv1.ContentPart_OutputText{OutputText: &gatewayv1.OutputText{Text: text}}}
	}
	fits := Parse[forecast](message(text(`{"city":"Oslo","celsius":3.5,"notes":["cold"]}`)))
	if fits.Err != nil || fits.Value.Celsius != 3.5 || fits.Value.Notes[0] != "cold" {
		t.Fatalf("%+v", fits)
	}
	if other := Parse[forecast](message(text("no JSON"))); other.Value != nil || other.Err == nil || other.Text() != "no JSON" {
		t.Fatalf("%+v", other)
	}
	refused := Parse[forecast](message(&gatewayv1.ContentPart{Kind: &gatewayv1.ContentPart_Refusal{
		Refusal: &gatewayv1.Refusal{Refusal: "no"},
	}}))
	if refused.Value != nil || refused.Err != nil || refused.Refusal() != "no" {
		t.Fatalf("%+v", refused)
	}
	half := message(text(`{"city":"Os`))
	half.Outcome = Incomplete
	if parsed := Parse[forecast](half); parsed.Value != nil || parsed.Err != nil || parsed.Outcome != Incomplete {
		t.Fatalf("%+v", parsed)
	}
}
