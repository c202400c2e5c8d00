#!/bin/sh
# This client's soak; clients/conformance/soak.ts starts it.
exec "$(dirname "$0")/run.sh" dev.responsesgateway.conformance.Soak
