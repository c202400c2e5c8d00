#!/bin/sh
# This client's benchmark; clients/conformance/bench.ts starts it.
exec "$(dirname "$0")/run.sh" dev.responsesgateway.conformance.Bench
