/**
 * Eight agents in parallel lanes of one session: one stream, one upstream connection, eight conversations.
 *
 *     npm start                                  # a gateway with its simulator
 *     node clients/typescript/examples/parallel.ts
 */
import { Client, type Lane } from '../src/index.ts';

const topics = ['tides', 'glass', 'bees', 'iron', 'salt', 'paper', 'clouds', 'bread'];

async function agent(lane: Lane, topic: string): Promise<string> {
  const draft = await lane.start({ input: `Write one sentence on ${topic}.` });
  await draft.final();
  // The lane remembers the draft: only the new sentence is sent.
  const review = await lane.start({ input: 'Now make it shorter.' });
  return (await review.final()).text;
}

using client = new Client();
await using session = await client.connect({ model: 'gpt-5.5', clientName: 'parallel-example' });
const answers = await Promise.all(topics.map((topic) => agent(session.lane(topic), topic)));
for (const [index, answer] of answers.entries()) console.log(`${topics[index]}: ${answer}`);
