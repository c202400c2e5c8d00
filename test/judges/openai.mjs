// npm openai against the simulator: a tool loop over HTTP, the same over its WebSocket helper.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

const client = new OpenAI({ apiKey: 'sk-judge', baseURL: process.env.SIMULATOR_URL, maxRetries: 0 });
const tools = [
  {
    type: 'function',
    name: 'weather',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
      additionalProperties: false,
    },
    strict: true,
  },
];
const outputs = ({ output }) =>
  output.flatMap((item) =>
    item.type === 'function_call'
      ? [{ type: 'function_call_output', call_id: item.call_id, output: JSON.parse(item.arguments).city }]
      : [],
  );

let response = await client.responses.create({ model: 'gpt-5.5', input: 'Weather?', tools });
for (let turns = 1; outputs(response).length > 0; turns += 1) {
  assert.ok(turns < 5);
  response = await client.responses
    .stream({ model: 'gpt-5.5', previous_response_id: response.id, input: outputs(response), tools })
    .finalResponse();
}
assert.match(response.output_text, /called tools 1 times/);
assert.equal((await client.responses.retrieve(response.id)).id, response.id);

const socket = new ResponsesWS(client);
let done;
for await (const event of socket) {
  if (event.type === 'open')
    socket.send({ type: 'response.create', model: 'gpt-5.5', input: '#say=socket', tools: [] });
  if (event.type !== 'message' || event.message.type !== 'response.completed') continue;
  done = event.message.response;
  break;
}
socket.close();
assert.equal(done.output[0].content[0].text, 'socket');
