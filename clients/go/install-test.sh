#!/bin/sh
# Installs the client into an empty project, by the commands of the README, and builds a program with it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
project=$(mktemp -d)
trap 'rm -rf "$project"' EXIT
cd "$project"
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"time"

	gateway "github.com/responses-gateway/responses-gateway/clients/go"
)

func main() {
	client, err := gateway.NewClient(gateway.WithAddress("127.0.0.1:1"))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	_, err = client.Connect(context.Background(), gateway.WithConnectTimeout(10*time.Second))
	fmt.Println(gateway.HasReason(err, gateway.ReasonUnreachable))
}
GO
go mod init example.com/empty
module=github.com/responses-gateway/responses-gateway/clients/go
go mod edit -require "$module@v0.0.0" -replace "$module=$here"
go mod tidy
[ "$(go run .)" = true ]
! grep -q opentelemetry go.mod
