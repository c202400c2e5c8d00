// aimock as an upstream: prints its base URL; a line on standard input ends it.
import { LLMock } from '@copilotkit/aimock';

const mock = new LLMock({ port: 0, latency: 20 });
for (const lane of ['a', 'b', 'c', 'd']) mock.onMessage(`say ${lane}`, { content: `answer of ${lane}` });
mock.onMessage('use the tool', { toolCalls: [{ name: 'weather', arguments: '{"city":"Oslo"}' }] });
mock.onMessage('be refused', {
  error: { message: 'that is refused', type: 'invalid_request_error', code: 'refused' },
  status: 400,
});
mock.onMessage('at length', { content: 'word '.repeat(2000) });
await mock.start();
console.log(`${mock.url}/v1`);
process.stdin.once('data', () => process.exit());
