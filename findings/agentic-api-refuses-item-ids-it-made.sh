#!/usr/bin/env bash
# vLLM's agentic-api stores each response with the items of its input, under their ids. An output item that a client gives back in
# the next request, as the Responses API has it for conversations that the client keeps, is then there twice: the answer is
# generated and streamed, and ends with an error 500 instead of response.completed. store: false, the same item without its id, and
# previous_response_id work.
#
# Version: agentic-api 0.9.0 (PyPI). Fails when such a history is taken. Needs python3 with pip and venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" "${model:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check agentic-api==0.9.0

# A model that says "Hello." over the Responses API.
cat >model.py <<'PY'
import http.server, itertools, json

numbers = itertools.count()

class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        n = next(numbers)
        response = {"id": f"resp_{n}", "object": "response", "created_at": 1, "model": "m", "tools": [], "tool_choice": "auto",
                    "parallel_tool_calls": True}
        text = {"type": "output_text", "text": "Hello.", "annotations": []}
        item = {"id": f"msg_{n}", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
                 "output_tokens_details": {"reasoning_tokens": 0}}
        events = [
            {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
            {"type": "response.content_part.added", **place, "part": {**text, "text": ""}},
            {"type": "response.output_text.delta", **place, "delta": "Hello.", "logprobs": []},
            {"type": "response.output_text.done", **place, "text": "Hello.", "logprobs": []},
            {"type": "response.content_part.done", **place, "part": text},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {**response, "status": "completed", "output": [item], "usage": usage}},
        ]
        body = "".join(
            f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': at})}\n\n" for at, event in enumerate(events))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
print(server.server_port, flush=True)
server.serve_forever()
PY
venv/bin/python model.py >port & model=$!
until [ -s port ]; do sleep 0.1; done
gateway=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
HOME=$folder OPENAI_API_KEY=none venv/bin/agentic-server --skip-llm-ready-check --llm-api-base "http://127.0.0.1:$(cat port)" \
  --gateway-host 127.0.0.1 --gateway-port "$gateway" --db-url sqlite::memory: >log 2>&1 & server=$!
until grep -q 'gateway listening' log; do sleep 0.1; done

cat >ask.py <<'PY'
import json, sys, urllib.request

def ask(**fields):
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/v1/responses", json.dumps({"model": "m", "stream": True, **fields}).encode(),
                                     {"content-type": "application/json"})
    events = [json.loads(line[6:]) for line in urllib.request.urlopen(request).read().decode().splitlines() if line.startswith("data: {")]
    return events[-1]

hello = {"type": "message", "role": "user", "content": "Hello!"}
first = ask(input=[hello])
[item] = first["response"]["output"]
nameless = {key: value for key, value in item.items() if key != "id"}
again = {
    "with its id": ask(input=[hello, item, hello]),
    "with its id, store: false": ask(input=[hello, item, hello], store=False),
    "without its id": ask(input=[hello, nameless, hello]),
    "previous_response_id": ask(input=[hello], previous_response_id=first["response"]["id"]),
}
for what, last in {"first": first, **again}.items():
    print(f"{what}: {last['type']} {(last.get('error') or {}).get('message', '')}".strip())
PY
venv/bin/python ask.py "$gateway" | tee said
# Seen:
diff said - <<'SEEN'
first: response.completed
with its id: error failed to persist response
with its id, store: false: response.completed
without its id: response.completed
previous_response_id: response.completed
SEEN
