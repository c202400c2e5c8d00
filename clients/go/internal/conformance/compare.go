package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

type finalStep struct {
	Turn          string                           `json:"turn"`
	Outcome       string                           `json:"outcome"`
	Text          *string                          `json:"text"`
	TextMatches   string                           `json:"text_matches"`
	TextLength    *int                             `json:"text_length"`
	Refusal       string                           `json:"refusal"`
	Responses     int                              `json:"responses"`
	FunctionCalls []string                         `json:"function_calls"`
	Usage         bool                             `json:"usage"`
	UsageOfAll    bool                             `json:"usage_of_all_turns"`
	Deltas        *int                             `json:"deltas"`
	Cost          json.RawMessage                  `json:"cost"`
	ResultOnly    bool                             `json:"result_only"`
	Types         []string                         `json:"types"`
	JSONOf        *struct{ Type, Contains string } `json:"json_of"`
	Error         *wantedError                     `json:"error"`
}

func (f finalStep) compare(played *played, failure error) error {
	if err := f.Error.compare(failure); err != nil {
		return err
	}
	result := played.result
	if f.Outcome != "" && string(result.Outcome) != f.Outcome {
		return fmt.Errorf("outcome %q instead of %q", result.Outcome, f.Outcome)
	}
	text := result.Text()
	switch {
	case f.Text != nil && text != *f.Text:
		return fmt.Errorf("text %q instead of %q", clip(text), *f.Text)
	case f.TextMatches != "" && !regexp.MustCompile(f.TextMatches).MatchString(text):
		return fmt.Errorf("text %q does not match %q", clip(text), f.TextMatches)
	case f.TextLength != nil && len(text) != *f.TextLength:
		return fmt.Errorf("text of %d bytes instead of %d", len(text), *f.TextLength)
	case f.Refusal != "" && result.Refusal() != f.Refusal:
		return fmt.Errorf("refusal %q", result.Refusal())
	case f.Responses != 0 && len(result.Responses) != f.Responses:
		return fmt.Errorf("%d responses instead of %d", len(result.Responses), f.Responses)
	case f.Usage && result.Usage().TotalTokens == 0:
		return errors.New("no usage")
	case f.UsageOfAll && !usageOfAll(result):
		return fmt.Errorf("usage %+v of %d turns", result.Usage(), len(result.Turns))
	case f.Deltas != nil && played.types["response.output_text.delta"] != *f.Deltas:
		return fmt.Errorf("%d deltas", played.types["response.output_text.delta"])
	}
	if f.Cost != nil {
		var wanted *cost
		if err := json.Unmarshal(f.Cost, &wanted); err != nil {
			return err
		}
		var told *cost
		if c := result.Cost; c != nil {
			told = &cost{c.GetAmount(), c.GetCurrency(), c.GetPricesAsOf()}
		}
		if (told == nil) != (wanted == nil) || (told != nil && *told != *wanted) {
			return fmt.Errorf("cost %+v instead of %s", told, f.Cost)
		}
	}
	if f.FunctionCalls != nil {
		var names []string
		for _, call := range result.FunctionCalls() {
			names = append(names, call.GetName())
		}
		if !slices.Equal(names, f.FunctionCalls) {
			return fmt.Errorf("calls %v", names)
		}
	}
	for _, name := range f.Types {
		if played.types[name] == 0 {
			return fmt.Errorf("no event %s", name)
		}
	}
	if f.JSONOf != nil && !strings.Contains(played.json[f.JSONOf.Type], f.JSONOf.Contains) {
		return fmt.Errorf("JSON of %s: %q", f.JSONOf.Type, played.json[f.JSONOf.Type])
	}
	return nil
}

type cost struct {
	Amount     string `json:"amount"`
	Currency   string `json:"currency"`
	PricesAsOf string `json:"prices_as_of"`
}

func usageOfAll(result *gateway.Result) bool {
	turns := result.Turns
	return len(turns) > 1 && result.Usage().TotalTokens > turns[len(turns)-1].Usage().TotalTokens
}

type wantedError struct {
	Reason         oneOf             `json:"reason"`
	Code           oneOf             `json:"code"`
	Replay         string            `json:"replay"`
	Phase          string            `json:"phase"`
	Inferred       *bool             `json:"inferred"`
	RetryAfter     bool              `json:"retry_after"`
	UpstreamCode   string            `json:"upstream_code"`
	UpstreamStatus int32             `json:"upstream_status"`
	Metadata       map[string]string `json:"metadata"`
	MetadataKeys   []string          `json:"metadata_keys"`
	ResultText     *string           `json:"result_text"`
}

// compare returns an error if the error is not the wanted one; nil wants none.
func (w *wantedError) compare(err error) error {
	if w == nil {
		return err
	}
	var e *gateway.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("error %v instead of %v", err, w.Reason)
	}
	// Go spells one code with one L.
	code := strings.ReplaceAll(strings.ToUpper(snake(e.Code.String())), "CANCELED", "CANCELLED")
	switch {
	case !w.Reason.has(e.Reason):
		return fmt.Errorf("reason %s instead of %v: %w", e.Reason, w.Reason, err)
	case !w.Code.has(code):
		return fmt.Errorf("code %s instead of %v: %w", code, w.Code, err)
	case w.Replay != "" && string(e.Replay) != w.Replay:
		return fmt.Errorf("replay %q instead of %q: %w", e.Replay, w.Replay, err)
	case w.Phase != "" && e.Phase != w.Phase:
		return fmt.Errorf("phase %q instead of %q: %w", e.Phase, w.Phase, err)
	case w.Inferred != nil && e.Inferred != *w.Inferred:
		return fmt.Errorf("inferred %v: %w", e.Inferred, err)
	case w.RetryAfter && e.RetryAfter == nil:
		return fmt.Errorf("no retry-after: %w", err)
	case w.UpstreamCode != "" && e.Upstream.GetCode() != w.UpstreamCode:
		return fmt.Errorf("upstream's code %q: %w", e.Upstream.GetCode(), err)
	case w.UpstreamStatus != 0 && e.Upstream.GetStatus() != w.UpstreamStatus:
		return fmt.Errorf("upstream's status %d: %w", e.Upstream.GetStatus(), err)
	}
	if w.ResultText != nil && (e.Result == nil || e.Result.Text() != *w.ResultText) {
		return fmt.Errorf("result so far %+v: %w", e.Result, err)
	}
	for _, key := range w.MetadataKeys {
		if e.Metadata[key] == "" {
			return fmt.Errorf("metadata %v: %w", e.Metadata, err)
		}
	}
	for key, value := range w.Metadata {
		if e.Metadata[key] != value {
			return fmt.Errorf("metadata %v: %w", e.Metadata, err)
		}
	}
	return nil
}

// oneOf is a text or a list of them; empty fits everything.
type oneOf []string

func (o *oneOf) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*o = oneOf{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(o))
}

func (o oneOf) has(value string) bool { return len(o) == 0 || slices.Contains(o, value) }

func snake(name string) string {
	var out strings.Builder
	for index, letter := range name {
		if index > 0 && letter >= 'A' && letter <= 'Z' {
			out.WriteByte('_')
		}
		out.WriteRune(letter)
	}
	return out.String()
}

func clip(text string) string { return text[:min(len(text), 200)] }
