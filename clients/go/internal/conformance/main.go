// Command conformance runs the scripted cases of clients/conformance with the Go client. See the README there.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const stepTimeout = 30 * time.Second

type testCase struct {
	Name  string                       `json:"name"`
	Steps []map[string]json.RawMessage `json:"steps"`
}

type outcome struct {
	Case  string  `json:"case"`
	OK    bool    `json:"ok"`
	Error string  `json:"error,omitempty"`
	Ms    float64 `json:"ms"`
}

func main() {
	control := control{url: os.Getenv("CONFORMANCE_CONTROL_URL")}
	var cases []testCase
	if err := control.call("GET", "/cases", nil, &cases); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	report := json.NewEncoder(os.Stdout)
	for _, each := range cases {
		began := time.Now()
		err := runCase(control, each)
		result := outcome{Case: each.Name, OK: err == nil, Ms: float64(time.Since(began).Microseconds()) / 1000}
		if err != nil {
			result.Error = err.Error()
		}
		_ = report.Encode(result)
	}
}

func runCase(control control, each testCase) (err error) {
	var started struct{ Address string }
	if err := control.call("POST", "/start", map[string]any{"case": each.Name}, &started); err != nil {
		return err
	}
	run := newRun(control, each.Name, started.Address)
	defer func() {
		run.close()
		var finished struct {
			OK    bool
			Error string
		}
		problem := control.call("POST", "/finish", map[string]any{"case": each.Name}, &finished)
		if err == nil && problem != nil {
			err = problem
		}
		if err == nil && !finished.OK {
			err = fmt.Errorf("journal: %s", finished.Error)
		}
	}()
	for index, step := range each.Steps {
		for name, raw := range step {
			ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
			err := run.step(ctx, name, raw)
			cancel()
			if err != nil {
				return fmt.Errorf("step %d (%s): %w", index+1, name, err)
			}
		}
	}
	return nil
}

type control struct{ url string }

func (c control) call(method, path string, body, into any) error {
	var encoded bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&encoded).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequest(method, c.url+path, &encoded)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, text)
	}
	return json.Unmarshal(text, into)
}
