// Command healthcheck asks the gateway's admin port whether it takes new sessions. The image's HEALTHCHECK runs it every
// few seconds, so it is small: no HTTP library, no TLS, and nothing of the gateway's configuration but an address.
//
//	healthcheck [HOST:PORT]
//
// Without an address it takes RESPONSES_GATEWAY_ADMIN_LISTEN, as the gateway does. It prints what /readyz says. Exit code
// 0: ready; 1: not ready, or no answer within four seconds.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const (
	timeout        = 4 * time.Second
	maxAnswerBytes = 64 << 10
	defaultListen  = "127.0.0.1:9464"
)

func main() {
	listen := os.Getenv("RESPONSES_GATEWAY_ADMIN_LISTEN")
	if len(os.Args) > 1 {
		listen = os.Args[1]
	}
	if listen == "" {
		listen = defaultListen
	}
	ready, says, err := ask(listen)
	if err != nil {
		fmt.Fprintf(os.Stderr, "no answer from http://%s/readyz: %v\n", listen, err)
		os.Exit(1)
	}
	fmt.Println(says)
	if !ready {
		os.Exit(1)
	}
}

func ask(listen string) (ready bool, says string, err error) {
	address, err := reachable(listen)
	if err != nil {
		return false, "", err
	}
	deadline := time.Now().Add(timeout)
	connection, err := (&net.Dialer{Deadline: deadline}).Dial("tcp", address)
	if err != nil {
		return false, "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(deadline); err != nil {
		return false, "", err
	}
	if _, err := io.WriteString(connection, "GET /readyz HTTP/1.0\r\n\r\n"); err != nil {
		return false, "", err
	}
	answer, err := io.ReadAll(io.LimitReader(connection, maxAnswerBytes))
	if err != nil {
		return false, "", err
	}
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	words := strings.Fields(head)
	if len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
		return false, "", errors.New("found something else than HTTP")
	}
	return words[1] == "200", strings.TrimSpace(body), nil
}

// reachable says where to find who listens there: nobody can connect to every address.
func reachable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port), nil
}
