package gateway

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/responses-gateway/responses-gateway/clients/go/gen/responses/gateway/v1"
)

// Format is the form of the answer's text, for Request.Format. Make it with [FormatOf] or [JSONFormat].
type Format struct{ pb *gatewayv1.TextFormat }

// FormatOf holds the answer to the JSON Schema of a struct, made as for [Func]. The name, "" for that of the type, is told
// to the model. It panics if T has no JSON Schema: that is a mistake in the program.
func FormatOf[T any](name string) *Format {
	kind := reflect.TypeFor[T]()
	schema, strict, err := schemaOf(kind)
	if err != nil {
		panic(fmt.Sprintf("gateway.FormatOf[%s]: %v", kind, err))
	}
	if name == "" {
		name = formatName(kind)
	}
	return JSONFormat(name, schema, strict)
}

// JSONFormat holds the answer to a JSON Schema. Names have up to 64 of a-z A-Z 0-9 _ -.
func JSONFormat(name string, schema []byte, strict bool) *Format {
	return &Format{&gatewayv1.TextFormat{Kind: &gatewayv1.TextFormat_JsonSchema{JsonSchema: &gatewayv1.JsonSchemaFormat{
		Name: name, Schema: schema, Strict: proto.Bool(strict),
	}}}}
}

// Parsed is a structured answer. Nothing of a response is lost because it does not fit: Result has all of it.
type Parsed[T any] struct {
	*Result
	// Value is nil if the model refused (see Refusal), the answer is not complete (see Outcome), or it does not fit.
	Value *T
	// Err is why a completed answer does not fit.
	Err error
}

// Parse reads the answer as a T.
func Parse[T any](result *Result) Parsed[T] {
	parsed := Parsed[T]{Result: result}
	if result == nil || result.Outcome != Completed || result.Refusal() != "" {
		return parsed
	}
	var value T
	if err := json.Unmarshal([]byte(result.Text()), &value); err != nil {
		parsed.Err = fmt.Errorf("gateway: the answer is no %s: %w", reflect.TypeFor[T](), err)
		return parsed
	}
	parsed.Value = &value
	return parsed
}

// formatName is the type's name as far as a format may have it.
func formatName(kind reflect.Type) string {
	name := strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || (r|0x20 >= 'a' && r|0x20 <= 'z') || (r >= '0' && r <= '9') {
			return r
		}
		return '_'
	}, kind.Name())
	if name == "" {
		return "answer"
	}
	return name[:min(len(name), 64)]
}
