import { z } from 'zod';
import { Client, tool } from '../../src/index.ts';

using client = new Client();
await using session = await client.connect({ model: 'gpt-5.5' });

// A conversation, streamed.
const turn = await session.start({ input: 'Hello' });
for await (const event of turn) process.stdout.write(event.textDelta);
const second = await (await session.start({ input: 'And shorter?' })).final();
console.log(`\n${second.text}`);

// A tool loop.
const weather = tool({
  name: 'weather',
  description: 'Weather of a city',
  input: z.object({ city: z.string() }),
  run: ({ city }) => ({ city, celsius: 21 }),
});
const result = await session
  .lane('agent')
  .runTools({ input: 'How warm is it in Oslo?' }, { functions: [weather] });
console.log(result.text.length > 0);

// A structured answer.
const Place = z.object({ city: z.string(), country: z.string() });
const answer = await session
  .lane('places')
  .parse({ input: 'Where is the opera with the white roof?' }, Place);
console.log(Object.keys(answer.parsed ?? {}));
