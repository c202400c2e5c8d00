package gateway

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var (
	timeType          = reflect.TypeFor[time.Time]()
	rawType           = reflect.TypeFor[json.RawMessage]()
	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
)

// schemaOf writes the JSON Schema of a struct, members in the order of its fields: the upstream's prompt cache
// depends on the order. Every member is required, as strict mode wants; those with a pointer type, omitempty or
// omitzero may be null. strict is false if something has no place in strict mode.
func schemaOf(t reflect.Type) (schema []byte, strict bool, err error) {
	w := &schemaWriter{strict: true}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil, false, fmt.Errorf("gateway: the arguments of a function are a struct, not %s", t)
	}
	w.object(t, nil)
	return w.out.Bytes(), w.strict, w.err
}

type schemaWriter struct {
	out    bytes.Buffer
	strict bool
	err    error
}

func (w *schemaWriter) value(t reflect.Type, nullable bool, tag reflect.StructTag, outer []reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t, nullable = t.Elem(), true
	}
	switch {
	case t == timeType:
		w.scalar("string", nullable, tag, `,"format":"date-time"`)
		return
	case t == rawType || t.Kind() == reflect.Interface:
		w.strict = false
		w.out.WriteByte('{')
		w.description(tag, false)
		w.out.WriteByte('}')
		return
	case t.Implements(textMarshalerType) || reflect.PointerTo(t).Implements(textMarshalerType):
		w.scalar("string", nullable, tag, "")
		return
	}
	switch t.Kind() {
	case reflect.String:
		w.scalar("string", nullable, tag, "")
	case reflect.Bool:
		w.scalar("boolean", nullable, tag, "")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		w.scalar("integer", nullable, tag, "")
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		w.scalar("integer", nullable, tag, `,"minimum":0`)
	case reflect.Float32, reflect.Float64:
		w.scalar("number", nullable, tag, "")
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			w.scalar("string", nullable, tag, `,"contentEncoding":"base64"`)
			return
		}
		w.out.WriteString(`{"type":` + typeName("array", nullable))
		w.description(tag, true)
		w.out.WriteString(`,"items":`)
		w.value(t.Elem(), false, "", outer)
		w.out.WriteByte('}')
	case reflect.Map:
		w.strict = false
		w.out.WriteString(`{"type":` + typeName("object", nullable))
		w.description(tag, true)
		w.out.WriteString(`,"additionalProperties":`)
		w.value(t.Elem(), false, "", outer)
		w.out.WriteByte('}')
	case reflect.Struct:
		for _, seen := range outer {
			if seen == t {
				w.fail(fmt.Errorf("gateway: %s contains itself", t))
				return
			}
		}
		w.nested(t, nullable, tag, outer)
	default:
		w.fail(fmt.Errorf("gateway: %s has no JSON Schema", t))
	}
}

func (w *schemaWriter) object(t reflect.Type, outer []reflect.Type) { w.nested(t, false, "", outer) }

func (w *schemaWriter) nested(t reflect.Type, nullable bool, tag reflect.StructTag, outer []reflect.Type) {
	inner := append(outer[:len(outer):len(outer)], t)
	w.out.WriteString(`{"type":` + typeName("object", nullable))
	w.description(tag, true)
	w.out.WriteString(`,"properties":{`)
	var required []string
	for _, field := range reflect.VisibleFields(t) {
		name, optional, skip := memberOf(field)
		if skip {
			continue
		}
		if len(required) > 0 {
			w.out.WriteByte(',')
		}
		required = append(required, name)
		w.out.WriteString(quote(name) + ":")
		w.value(field.Type, optional, field.Tag, inner)
	}
	names, _ := json.Marshal(append([]string{}, required...))
	w.out.WriteString(`},"required":` + string(names) + `,"additionalProperties":false}`)
}

func (w *schemaWriter) scalar(name string, nullable bool, tag reflect.StructTag, more string) {
	w.out.WriteString(`{"type":` + typeName(name, nullable))
	w.description(tag, true)
	if choices, found := tag.Lookup("enum"); found {
		w.out.WriteString(`,"enum":[`)
		for index, choice := range strings.Split(choices, ",") {
			if index > 0 {
				w.out.WriteByte(',')
			}
			if name == "string" {
				choice = quote(choice)
			} else if _, err := strconv.ParseFloat(choice, 64); err != nil {
				w.fail(fmt.Errorf("gateway: enum value %q is not a number", choice))
			}
			w.out.WriteString(choice)
		}
		if nullable {
			w.out.WriteString(",null")
		}
		w.out.WriteByte(']')
	}
	w.out.WriteString(more + "}")
}

func (w *schemaWriter) description(tag reflect.StructTag, comma bool) {
	text := tag.Get("description")
	if text == "" {
		return
	}
	if comma {
		w.out.WriteByte(',')
	}
	w.out.WriteString(`"description":` + quote(text))
}

func (w *schemaWriter) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// memberOf reads the json tag as encoding/json does.
func memberOf(field reflect.StructField) (name string, optional, skip bool) {
	tag, options, _ := strings.Cut(field.Tag.Get("json"), ",")
	embedded := field.Anonymous && tag == ""
	// Promoted fields come by themselves; the struct that holds them is no member.
	if !field.IsExported() || tag == "-" && options == "" || embedded {
		return "", false, true
	}
	if tag == "" {
		tag = field.Name
	}
	for _, option := range strings.Split(options, ",") {
		optional = optional || option == "omitempty" || option == "omitzero"
	}
	return tag, optional, false
}

func typeName(name string, nullable bool) string {
	if nullable {
		return `["` + name + `","null"]`
	}
	return quote(name)
}

func quote(text string) string {
	quoted, _ := json.Marshal(text)
	return string(quoted)
}
