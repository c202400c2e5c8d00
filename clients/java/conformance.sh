#!/bin/sh
# The conformance runner; clients/conformance/run.ts starts it.
exec "$(dirname "$0")/run.sh" dev.responsesgateway.conformance.Main
