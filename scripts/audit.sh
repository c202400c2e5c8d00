#!/bin/sh
# Known vulnerabilities in what is shipped. A registry that has no advisory service (mirrors often answer 404 or
# 405) is no finding: that is said, and the step passes. Real findings of level high or above fail.
set -u
cd "$(dirname "$0")/.."
report="$(npm audit --json --omit dev --audit-level high 2>/dev/null)"
status=$?
if printf '%s' "$report" | grep -q '"vulnerabilities"'; then
  [ "$status" -eq 0 ] && echo "audit: no known vulnerability of level high or above" && exit 0
  npm audit --omit dev --audit-level high
  exit 1
fi
echo "audit: SKIPPED, the registry does not answer advisory requests"
