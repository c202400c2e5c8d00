package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

type weatherArgs struct {
	City string  `json:"city" description:"Name of the city"`
	Unit string  `json:"unit" enum:"celsius,fahrenheit"`
	Days *int    `json:"days"`
	Note string  `json:"note,omitempty"`
	Rest float64 `json:"-"`
}

func TestSchemaFromStructTags(t *testing.T) {
	schema, strict, err := schemaOf(reflect.TypeFor[weatherArgs]())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"object","properties":{` +
		`"city":{"type":"string","description":"Name of the city"},` +
		`"unit":{"type":"string","enum":["celsius","fahrenheit"]},` +
		`"days":{"type":["integer","null"]},` +
		`"note":{"type":["string","null"]}},` +
		`"required":["city","unit","days","note"],"additionalProperties":false}`
	if string(schema) != want || !strict {
		t.Fatalf("strict %v\n%s\n%s", strict, schema, want)
	}
	type nested struct {
		Points []struct{ X, Y float64 } `json:"points"`
		Labels map[string]string        `json:"labels"`
	}
	schema, strict, err = schemaOf(reflect.TypeFor[nested]())
	if err != nil || strict || !json.Valid(schema) {
		t.Fatalf("%v %v %s", err, strict, schema)
	}
	type loop struct{ Next []*loop }
	if _, _, err := schemaOf(reflect.TypeFor[loop]()); err == nil {
		t.Fatal("a type that contains itself has no schema")
	}
	if _, _, err := schemaOf(reflect.TypeFor[string]()); err == nil {
		t.Fatal("arguments are a struct")
	}
}

// model answers the first turn with these calls, and the second with the outputs it got.
func model(seen *[]*gatewayv1.StartTurn, calls ...*gatewayv1.OutputItem) func(*fakeStream) error {
	return func(f *fakeStream) error {
		_ = f.accept()
		for round := 0; ; round++ {
			turn, err := f.startTurn()
			if err != nil {
				return nil
			}
			*seen = append(*seen, turn)
			if round == 0 {
				_ = f.events(completed(turn, "resp_1", calls...))
				continue
			}
			var outputs []string
			for _, item := range turn.GetCreate().GetInput() {
				output := item.GetFunctionCallOutput()
				outputs = append(outputs, output.GetCallId()+"="+output.GetOutput())
			}
			_ = f.events(completed(turn, "resp_2", answer(strings.Join(outputs, "; "))))
		}
	}
}

func TestToolLoopRunsCallsSideBySideAndReturnsErrorsToTheModel(t *testing.T) {
	var seen []*gatewayv1.StartTurn
	session := connectTo(t, nil, model(&seen,
		functionCall("c1", "weather", `{"city":"Oslo"}`),
		functionCall("c2", "weather", `{"city":"Rome"}`),
		functionCall("c3", "broken", `{}`),
		functionCall("c4", "panics", `{}`),
		functionCall("c5", "missing", `{}`),
		functionCall("c6", "weather", `{"city":`),
	))
	var together sync.WaitGroup
	together.Add(2)
	tools := Tools{Functions: []Tool{
		Func("weather", "Weather of a city", func(ctx context.Context, in weatherArgs) (map[string]string, error) {
			// Each waits for the other: they run at the same time.
			together.Done()
			together.Wait()
			return map[string]string{"in": in.City}, nil
		}),
		Func("broken", "Fails", func(context.Context, struct{}) (string, error) { return "", errors.New("no luck") }),
		Func("panics", "Panics", func(context.Context, struct{}) (string, error) { panic("oh") }),
	}}
	ctx := testContext(t)
	result, err := session.Lane("").RunTools(ctx, Request{Input: Text("hi"), Instructions: "be brief"}, tools)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(result.Text(), "; ")
	want := []string{
		`c1={"in":"Oslo"}`, `c2={"in":"Rome"}`, `c3={"error":"no luck"}`, `c4={"error":"oh"}`,
		`c5={"error":"there is no function missing"}`,
	}
	if !reflect.DeepEqual(parts[:5], want) || !strings.HasPrefix(parts[5], `c6={"error":"the arguments`) {
		t.Fatalf("%q", parts)
	}
	if len(seen) != 2 || len(seen[1].GetCreate().GetTools()) != 3 || seen[1].GetCreate().GetInstructions() != "be brief" {
		t.Fatalf("%v", seen)
	}
}

func TestToolLoopEndsAtItsLimit(t *testing.T) {
	calls := 0
	session := connectTo(t, nil, func(f *fakeStream) error {
		_ = f.accept()
		for {
			turn, err := f.startTurn()
			if err != nil {
				return nil
			}
			_ = f.events(completed(turn, "resp_1", functionCall("c", "again", `{}`)))
		}
	})
	tools := Tools{MaxTurns: 3, Functions: []Tool{
		Func("again", "Again", func(context.Context, struct{}) (string, error) { calls++; return "ok", nil }),
	}}
	result, err := session.Lane("").RunTools(testContext(t), Request{Input: Text("hi")}, tools)
	if !errors.Is(err, ErrTurnLimit) || calls != 2 || len(result.FunctionCalls()) != 1 {
		t.Fatalf("%v after %d calls", err, calls)
	}
}
