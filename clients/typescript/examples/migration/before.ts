import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const openai = new OpenAI();
const model = 'gpt-5.5';

// A conversation, streamed.
const stream = openai.responses.stream({ model, input: 'Hello' });
for await (const event of stream) {
  if (event.type === 'response.output_text.delta') process.stdout.write(event.delta);
}
const first = await stream.finalResponse();
const second = await openai.responses.create({
  model,
  input: 'And shorter?',
  previous_response_id: first.id,
});
console.log(`\n${second.output_text}`);

// A tool loop.
const weather = ({ city }: { city: string }) => ({ city, celsius: 21 });
const tools: OpenAI.Responses.FunctionTool[] = [
  {
    type: 'function',
    name: 'weather',
    description: 'Weather of a city',
    strict: true,
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
      additionalProperties: false,
    },
  },
];
let response = await openai.responses.create({ model, tools, input: 'How warm is it in Oslo?' });
for (;;) {
  const calls = response.output.filter((item) => item.type === 'function_call');
  if (calls.length === 0) break;
  const input = calls.map((call) => ({
    type: 'function_call_output' as const,
    call_id: call.call_id,
    output: JSON.stringify(weather(JSON.parse(call.arguments))),
  }));
  response = await openai.responses.create({ model, tools, input, previous_response_id: response.id });
}
console.log(response.output_text.length > 0);

// A structured answer.
const Place = z.object({ city: z.string(), country: z.string() });
const parsed = await openai.responses.parse({
  model,
  input: 'Where is the opera with the white roof?',
  text: { format: zodTextFormat(Place, 'place') },
});
console.log(Object.keys(parsed.output_parsed ?? {}));
