#!/usr/bin/env bash
# What a client tells as "the conversation so far" is not what the model said. One response (a text, then two function
# calls) comes back in the next request of two frameworks as:
#   haystack-ai  both calls before the text; arguments printed anew with other blanks; id, status and phase of the text gone
#   ai           the text as an `item_reference`, the calls of the same response in full and without their ids
# So neither comparing items with what was said nor looking up stored ids recognises a conversation; and a server that
# stored nothing refuses the second step of ai with its defaults, although half of the response is there.
#
# Versions: haystack-ai 3.4.1 (PyPI, with openai 3.57.0); ai 6.0.326, @ai-sdk/openai 3.0.141 (npm).
# Fails when a framework tells it differently. Needs node, npm, python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund --ignore-scripts --loglevel=error ai@6.0.326 @ai-sdk/openai@3.0.141 zod@4.6.7
python3 -m venv py
py/bin/pip install --quiet --disable-pip-version-check haystack-ai==3.4.1 openai==3.57.0

# Answers with a text and two calls, then with a text; writes down every request.
cat >server.mjs <<'JS'
import { createServer } from 'node:http';
import { appendFileSync, writeFileSync } from 'node:fs';
const text = (n, phase) => ({ id: `msg_${n}`, type: 'message', role: 'assistant', status: 'completed', phase,
  content: [{ type: 'output_text', text: 'Let me look.', annotations: [], logprobs: [] }] });
const call = (id, city) => ({ id: `fc_${id}`, type: 'function_call', status: 'completed', call_id: id, name: 'weather',
  arguments: `{"city":"${city}"}` });
let n = 0;
const server = createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => { body += chunk; });
  request.on('end', () => {
    appendFileSync('requests.jsonl', `${JSON.stringify(JSON.parse(body).input)}\n`);
    const first = n % 2 === 0;
    n += 1;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ id: `resp_${n}`, object: 'response', created_at: 1, status: 'completed', error: null,
      incomplete_details: null, instructions: null, metadata: {}, model: 'm', parallel_tool_calls: true, temperature: 1,
      tool_choice: 'auto', tools: [], top_p: 1, usage: { input_tokens: 1, output_tokens: 1, total_tokens: 2,
        input_tokens_details: { cached_tokens: 0 }, output_tokens_details: { reasoning_tokens: 0 } },
      output: first ? [text(n, 'commentary'), call('c1', 'Oslo'), call('c2', 'Bergen')] : [text(n, 'final_answer')] }));
  });
}).listen(0, '127.0.0.1', () => writeFileSync('port', String(server.address().port)));
JS
cat >run_haystack.py <<'PY'
import sys
from typing import Annotated
from haystack.components.generators.chat import OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret

@tool
def weather(city: Annotated[str, "a city"]) -> str:
    "The weather"
    return "rain"

generator = OpenAIResponsesChatGenerator(model="m", api_key=Secret.from_token("none"), api_base_url=sys.argv[1], tools=[weather])
history = [ChatMessage.from_user("weather?")]
reply = generator.run(history)["replies"][0]
history.append(reply)
history += [ChatMessage.from_tool("rain", origin=call) for call in reply.tool_calls]
generator.run(history)
PY
cat >ai.mjs <<'JS'
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, stepCountIs, tool } from 'ai';
import { z } from 'zod';
const openai = createOpenAI({ baseURL: process.argv[2], apiKey: 'none' });
const weather = tool({ description: 'The weather', inputSchema: z.object({ city: z.string() }), execute: async () => 'rain' });
await generateText({ model: openai.responses('m'), tools: { weather }, prompt: 'weather?', stopWhen: stepCountIs(2) });
JS
node server.mjs & server=$!
until test -s port; do kill -0 "$server"; read -rt 0.1 <> <(:) || true; done
url="http://127.0.0.1:$(cat port)/v1"
HAYSTACK_TELEMETRY_ENABLED=False py/bin/python run_haystack.py "$url"
node ai.mjs "$url"
node --input-type=module -e "
import { readFileSync } from 'node:fs';
import { deepStrictEqual } from 'node:assert';
const told = readFileSync('requests.jsonl', 'utf8').trim().split('\n').map((line) => JSON.parse(line));
const said = (input) => input.slice(1, 4).map(({ type, role, call_id, id, arguments: args }) =>
  [type ?? role, call_id ?? id ?? null, args ?? null]);
console.log('haystack-ai', JSON.stringify(said(told[1])));
console.log('ai         ', JSON.stringify(said(told[3])));
deepStrictEqual(said(told[1]), [
  ['function_call', 'c1', '{\"city\": \"Oslo\"}'], ['function_call', 'c2', '{\"city\": \"Bergen\"}'], ['assistant', null, null]]);
deepStrictEqual(told[1][3], { role: 'assistant', content: 'Let me look.' });
deepStrictEqual(said(told[3]), [
  ['item_reference', 'msg_3', null], ['function_call', 'c1', '{\"city\":\"Oslo\"}'], ['function_call', 'c2', '{\"city\":\"Bergen\"}']]);
deepStrictEqual(told[3].slice(2, 4).map(({ id }) => id), [undefined, undefined]);
"
