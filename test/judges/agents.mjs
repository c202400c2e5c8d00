// @openai/agents against the simulator: an agent with a tool, streamed and not.
import assert from 'node:assert/strict';
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from '@openai/agents';
import { z } from 'zod';

setTracingDisabled(true);
let calls = 0;
const weather = tool({
  name: 'weather',
  description: 'Tells the weather.',
  parameters: z.object({ city: z.string() }),
  execute: ({ city }) => {
    calls += 1;
    return `rain in ${city}`;
  },
});
const agent = new Agent({ name: 'Judge', instructions: 'Be brief.', model: 'gpt-5.5', tools: [weather] });
const provider = new OpenAIProvider({
  apiKey: 'sk-judge',
  baseURL: process.env.SIMULATOR_URL,
  useResponses: true,
});
const runner = new Runner({ modelProvider: provider, tracingDisabled: true });
const whole = await runner.run(agent, 'Weather?');
assert.match(whole.finalOutput, /called tools 1 times/);
const streamed = await runner.run(agent, 'Weather?', { stream: true });
for await (const _ of streamed);
await streamed.completed;
assert.match(streamed.finalOutput, /called tools 1 times/);
assert.equal(calls, 2);
