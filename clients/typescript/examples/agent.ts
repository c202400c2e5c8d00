/**
 * An agent with two tools. The calls of a turn run side by side; their results are the only input of the next turn.
 *
 *     npm start                                  # a gateway with its simulator
 *     node clients/typescript/examples/agent.ts
 */
import { z } from 'zod';
import { Client, tool } from '../src/index.ts';

const weather = tool({
  name: 'weather',
  description: 'Tells the weather of a city.',
  input: z.object({ city: z.string().describe('Name of the city') }),
  run: ({ city }) => ({ city, celsius: 21, sky: 'clear' }),
});

const time = tool({
  name: 'time',
  description: 'Tells the time in a time zone.',
  input: z.object({ zone: z.string().describe('IANA name, for instance Europe/Berlin') }),
  run: ({ zone }) => new Date().toLocaleTimeString('en-GB', { timeZone: zone }),
});

using client = new Client();
await using session = await client.connect({ model: 'gpt-5.5', clientName: 'agent-example' });
const turns = session
  .lane('agent')
  .toolTurns(
    { input: 'How warm is it in Berlin, and how late?', instructions: 'Use the tools.' },
    { functions: [weather, time], maxTurns: 10 },
  );
for await (const turn of turns) {
  for await (const event of turn) {
    const { payload } = event;
    if (payload.case === 'outputTextDelta') process.stdout.write(payload.value.delta);
    if (payload.case === 'outputItemDone' && payload.value.item?.kind.case === 'functionCall') {
      const call = payload.value.item.kind.value;
      console.log(`${call.name}(${call.arguments})`);
    }
  }
}
console.log();
