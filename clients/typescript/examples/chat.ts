/**
 * A chat in the terminal: each line is a turn on the same lane, so only the new line goes to the gateway.
 *
 *     npm start                                  # a gateway with its simulator
 *     node clients/typescript/examples/chat.ts
 */
import { createInterface } from 'node:readline/promises';
import { Client, GatewayError } from '../src/index.ts';

using client = new Client();
await using session = await client.connect({ model: 'gpt-5.5', clientName: 'chat-example' });
const lines = createInterface({ input: process.stdin });
process.stdout.write('> ');
for await (const line of lines) {
  try {
    const turn = await session.start({ input: line, instructions: 'Answer briefly.' });
    for await (const event of turn) process.stdout.write(event.textDelta);
    console.log(`\n(${turn.result.usage.totalTokens} tokens)`);
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error;
    console.error(`${error.reason}: ${error.message}`);
  }
  process.stdout.write('> ');
}
