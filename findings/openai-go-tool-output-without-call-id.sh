#!/usr/bin/env bash
# openai-go v3.53.0 and v3.54.0: a minor release takes the call id out of the helper for tool outputs.
#
# ResponseInputItemParamOfFunctionCallOutput(callID, output) became ResponseInputItemParamOfFunctionCallOutput(output), as
# call_id turned optional in the schema and the helpers take what is required. So a tool loop that was written against
# v3.53 does not compile with v3.54. Whoever mends that by dropping the argument sends an item without call_id: it
# compiles, and the output belongs to no call. The id has to be set by hand, and is a param.Opt now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
go mod init example.com/check 2>/dev/null

cat >before.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"

	"github.com/openai/openai-go/v3/responses"
)

func main() {
	item, _ := json.Marshal(responses.ResponseInputItemParamOfFunctionCallOutput("call_1", "21 degrees"))
	fmt.Println(string(item))
}
GO
cat >after.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"

	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
)

func main() {
	output := responses.ResponseInputItemParamOfFunctionCallOutput("21 degrees")
	item, _ := json.Marshal(output)
	fmt.Println(string(item))
	output.OfFunctionCallOutput.CallID = param.NewOpt("call_1")
	item, _ = json.Marshal(output)
	fmt.Println(string(item))
}
GO

go get github.com/openai/openai-go/v3@v3.53.0 2>/dev/null
echo 'v3.53.0:' && go run before.go | tee old
grep -q '"call_id":"call_1"' old
go get github.com/openai/openai-go/v3@v3.54.0 2>/dev/null
if go build -o /dev/null before.go 2>error; then
  echo 'v3.54.0 builds it' && exit 1
fi
echo 'v3.54.0:' && grep 'too many arguments' error
go run after.go | tee new
[ "$(grep -c call_id new)" = 1 ] && [ "$(grep -c 21 new)" = 2 ]
echo 'as described'
