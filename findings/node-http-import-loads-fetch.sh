#!/usr/bin/env bash
# An ES module that imports one name of node:http makes Node read all of them, and one is a getter that loads undici, Node's
# fetch and WebSocket client: some 20 ms and 5 MB at every start of a server that uses neither. require() and
# process.getBuiltinModule() do not. A gateway that fronts WebSockets with a library of its own pays for a second one.
#
# Version: Node 24. Fails when the import no longer does that. Needs Node 22.15 or later.
set -euo pipefail
loaded='console.log(process.moduleLoadList.some((name) => name.includes("internal/deps/undici")))'
by_import=$(node --input-type=module -e "import { Agent } from 'node:http'; void Agent; $loaded")
by_require=$(node --input-type=commonjs -e "const { Agent } = require('node:http'); void Agent; $loaded")
by_builtin=$(node --input-type=module -e "const { Agent } = process.getBuiltinModule('node:http'); void Agent; $loaded")
echo "Node $(node --version)"
echo "undici is loaded after an import of node:http:      $by_import"
echo "undici is loaded after require('node:http'):         $by_require"
echo "undici is loaded after process.getBuiltinModule():  $by_builtin"
[ "$by_import $by_require $by_builtin" = 'true false false' ]
