/** The ways of talking to the model that the workflow benchmark compares. */
import { Agent as HttpsAgent, request } from 'node:https';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { loadApi } from '../../src/translate/index.ts';
import type { Agent, Item, TurnRequest, TurnResult } from './agent-loop.ts';
import { LightClient, type LightStream } from './light-client.ts';

/** HTTP and server-sent events over one kept connection, with node:https alone: cheaper than any SDK. */
export function httpAgent(url: URL, ca: string, context: 'full' | 'by id'): Agent {
  const agent = new HttpsAgent({ keepAlive: true, maxSockets: 1, ca });
  let previous: string | undefined;
  return {
    async turn({ fresh, whole, settings }: TurnRequest): Promise<TurnResult> {
      const stateless = { store: false, include: ['reasoning.encrypted_content'], input: whole };
      const stateful = { store: true, input: fresh, ...(previous && { previous_response_id: previous }) };
      const body = { ...settings, stream: true, ...(context === 'full' ? stateless : stateful) };
      const { result, id } = await post(url, agent, JSON.stringify(body));
      previous = id;
      return result;
    },
    close: async () => agent.destroy(),
  };
}

/** The official SDK's socket, as one would use it in the service itself. */
export function sdkSocketAgent(url: URL, ca: string): Agent {
  const client = new OpenAI({ apiKey: 'bench', baseURL: url.href, maxRetries: 0 });
  const socket = new ResponsesWS(client, { ca });
  const opened = isOpen(socket);
  let previous: string | undefined;
  return {
    async turn({ fresh, settings }) {
      await opened;
      return new Promise((resolve, reject) => {
        const output: Item[] = [];
        let firstMs = Number.NaN;
        const listen = (event: { type: string }) => {
          if (event.type.endsWith('.delta') && Number.isNaN(firstMs)) firstMs = performance.now();
          else if (event.type === 'response.output_item.done') output.push((event as unknown as Done).item);
          else if (event.type === 'error' || event.type === 'response.failed')
            reject(new Error(JSON.stringify(event)));
          else if (event.type === 'response.completed') {
            previous = (event as unknown as Completed).response.id;
            socket.off('event', listen);
            resolve({ output, firstMs });
          }
        };
        socket.on('event', listen);
        const create = {
          type: 'response.create',
          ...settings,
          store: false,
          input: fresh,
          ...(previous && { previous_response_id: previous }),
        };
        socket.send(create as unknown as Parameters<ResponsesWS['send']>[0]);
      });
    },
    close: async () => socket.close(),
  };
}

/** Typed events through the gateway. It chains by itself. */
export function gatewayAgent(address: string): Agent {
  const client = new LightClient(address);
  const eventType = loadApi().type('Event');
  let stream: LightStream | undefined;
  let turns = 0;
  return {
    async turn({ fresh, settings }) {
      stream ??= await client.open();
      const { tools, reasoning, ...plain } = settings;
      const output: Item[] = [];
      stream.onEventBytes = (_turnId, type, bytes) => {
        if (type !== 'response.output_item.done') return;
        const event = eventType.decode(bytes) as unknown as DecodedItemDone;
        const { function_call: call } = event.output_item_done?.item ?? {};
        output.push(!call ? {} : { type: 'function_call', call_id: call.call_id });
      };
      turns += 1;
      const { firstMs } = await stream.turn({
        turnId: `t${turns}`,
        create: {
          ...plain,
          store: false,
          tools: (tools as Item[]).map(raw),
          reasoning,
          input: fresh.map(raw),
        },
      });
      return { output, firstMs };
    },
    async close() {
      await stream?.close();
      client.close();
    },
  };
}

async function isOpen(socket: ResponsesWS): Promise<void> {
  for await (const { type } of socket) if (type === 'open') return;
  throw new Error('the SDK could not connect');
}

interface Done {
  readonly item: Item;
}

interface Completed {
  readonly response: { readonly id: string };
}

interface DecodedItemDone {
  readonly output_item_done?: {
    readonly item?: { readonly function_call?: { readonly call_id: string } | null };
  };
}

/** Every union of the API has a raw arm. */
function raw(item: Item): object {
  return { json: Buffer.from(JSON.stringify(item)) };
}

function post(url: URL, agent: HttpsAgent, body: string): Promise<{ result: TurnResult; id: string }> {
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      authorization: 'Bearer bench',
      'content-length': Buffer.byteLength(body),
    };
    const call = request(`${url.href}/responses`, { method: 'POST', agent, headers }, (response) => {
      const output: Item[] = [];
      let firstMs = Number.NaN;
      let id = '';
      let rest = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        const blocks = (rest + chunk).split('\n\n');
        rest = blocks.pop() ?? '';
        for (const block of blocks) {
          const data = block.slice(block.indexOf('data: ') + 6);
          const event = JSON.parse(data) as { type: string } & Done & Completed;
          if (event.type.endsWith('.delta') && Number.isNaN(firstMs)) firstMs = performance.now();
          else if (event.type === 'response.output_item.done') output.push(event.item);
          else if (event.type === 'response.completed') id = event.response.id;
        }
      });
      response.on('end', () =>
        id === ''
          ? reject(new Error(`HTTP ${response.statusCode}: ${rest}`))
          : resolve({ result: { output, firstMs }, id }),
      );
      response.on('error', reject);
    });
    call.on('error', reject);
    call.end(body);
  });
}
