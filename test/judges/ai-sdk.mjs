// ai and @ai-sdk/openai against the simulator: a tool loop, generated and streamed.
import assert from 'node:assert/strict';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

let calls = 0;
const weather = tool({
  description: 'Tells the weather.',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    calls += 1;
    return `rain in ${city}`;
  },
});
const openai = createOpenAI({ apiKey: 'sk-judge', baseURL: process.env.SIMULATOR_URL });
const call = {
  model: openai.responses('gpt-5.5'),
  prompt: 'Weather?',
  tools: { weather },
  stopWhen: stepCountIs(5),
};
const whole = await generateText(call);
assert.match(whole.text, /called tools 1 times/);
const streamed = streamText(call);
let text = '';
for await (const delta of streamed.textStream) text += delta;
assert.match(text, /called tools 1 times/);
assert.equal(calls, 2);
