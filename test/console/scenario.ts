import { setTimeout as delay } from 'node:timers/promises';
import { type RunningGateway, startGateway } from '../../src/app/gateway.ts';
import { loadConfig } from '../../src/config/load.ts';
import { type Message, TestClient, type TestEvent, type TestStream, userMessage } from '../harness/client.ts';

/** A whole gateway with its admin port and the built-in simulator. `changes` are settings by path. */
export async function startWithAdmin(
  changes: Readonly<Record<string, unknown>> = {},
  drain: () => void = () => {},
): Promise<RunningGateway> {
  const settings = {
    listen: '127.0.0.1:0',
    'admin.listen': '127.0.0.1:0',
    'telemetry.logs.level': 'error',
    ...changes,
  };
  const { config } = loadConfig({
    file: undefined,
    flags: Object.entries(settings).map(([path, value]) => ({
      path: path.split('.'),
      value,
      origin: { kind: 'flag', name: path } as const,
    })),
    environment: {},
  });
  return startGateway(config, { environment: {}, version: '1.0.0', drain });
}

const TOOLS = ['list_files', 'read_file', 'run_tests'].map((name) => ({
  function: { name, parameters_json: '{"type":"object"}' },
}));

/** One step of an agent: the calls that it made. */
async function step(
  stream: TestStream,
  turn: Message & { readonly turn_id: string },
  input: readonly Message[],
): Promise<Message[]> {
  stream.startTurn({ ...turn, create: { model: 'gpt-6-astra', tools: TOOLS, input } });
  return callsOf(await stream.turn(turn.turn_id));
}

function callsOf(events: readonly TestEvent[]): Message[] {
  return events
    .filter((event) => event.type === 'response.output_item.done')
    .flatMap((event) => {
      const { item } = event.output_item_done as { item: { function_call?: { call_id: string } } };
      return item.function_call === undefined
        ? []
        : [{ function_call_output: { call_id: item.function_call.call_id, output: '{"ok":true}' } }];
    });
}

export function responseOf(events: readonly TestEvent[]): string {
  const created = events.find((event) => event.type === 'response.created');
  if (created === undefined) throw new Error('the turn had no response');
  return (created.response_created as { response: { id: string } }).response.id;
}

/**
 * An agent's conversation: a loop of tools, a fork that is reviewed beside it, a steer, a lost link in mid-answer with its
 * recovery, and the turn after it. `pace` stretches what tools take.
 */
export async function agentConversation(
  gateway: RunningGateway,
  client: TestClient,
  pace = 1,
): Promise<{ readonly stream: TestStream; readonly id: string }> {
  const stream = client.connect({
    client_name: 'review-agent',
    client_version: '2.1',
    metadata: { env: 'prod', run: '4711' },
  });
  const { session_id: id } = await stream.opened();
  let input: Message[] = [userMessage('review this change #tools=4 #ttft=60 #tps=250')];
  for (let turn = 1; turn <= 4; turn += 1) {
    input = await step(stream, { lane_id: 'main', turn_id: `plan-${turn}` }, input);
    await delay(pace * (60 + 50 * turn));
  }
  const answered = step(stream, { lane_id: 'main', turn_id: 'plan-5' }, input);
  await answered;
  const root = responseOf(await stream.turn('plan-5'));

  stream.startTurn(
    {
      lane_id: 'critic',
      turn_id: 'critic-1',
      previous_response_id: root,
      create: { model: 'gpt-6-astra' },
    },
    'what is wrong with that? #ttft=120 #deltas=60 #tps=120',
  );
  stream.startTurn(
    { lane_id: 'main', turn_id: 'draft', create: { model: 'gpt-6-astra' } },
    'write it up #ttft=40 #deltas=600 #tps=120',
  );
  await stream.event('response.output_text.delta', 'draft');
  stream.send({
    steer_turn: {
      lane_id: 'main',
      turn_id: 'draft',
      input: [userMessage('shorter, please #deltas=40 #tps=120')],
    },
  });
  await Promise.all([stream.turn('draft'), stream.turn('critic-1')]);
  await delay(pace * 40);

  stream.startTurn(
    { lane_id: 'main', turn_id: 'lost', create: { model: 'gpt-6-astra' } },
    'and the tests? #ttft=30 #deltas=200 #tps=150',
  );
  await stream.event('response.output_text.delta', 'lost');
  await delay(pace * 150);
  gateway.simulator?.cutConnections();
  await stream.turn('lost');
  stream.startTurn(
    { lane_id: 'main', turn_id: 'again', create: { model: 'gpt-6-astra' } },
    'and the tests? #ttft=50 #deltas=60 #tps=200',
  );
  stream.startTurn({ lane_id: 'critic', turn_id: 'critic-2' }, 'and now? #ttft=90 #deltas=30 #tps=120');
  await Promise.all([stream.turn('again'), stream.turn('critic-2')]);
  return { stream, id };
}

export { TestClient };
