/** The same load of text deltas through the gateway, and through the floor. */
import { Client, type ClientDuplexStream, credentials } from '@grpc/grpc-js';
import { LightClient, userMessage } from './light-client.ts';
import { cpuUs, exactCpuUs, type Service, serviceCpuUs } from './processes.ts';

export interface LoadResult {
  /** Of the service's process and its workers, for each event. */
  readonly cpuUs: number;
  readonly perSecond: number;
  /** Events in one message. */
  readonly batch: number;
}

/** `deltas` to each of `streams`, each on a connection of its own: with workers, connections are what is shared out. */
export async function overGateway(
  service: Service,
  payload: 'TYPED' | 'JSON',
  streams: number,
  deltas: number,
): Promise<LoadResult> {
  const clients = Array.from({ length: streams }, () => new LightClient(service.address));
  const open = await Promise.all(clients.map((client) => client.open(payload)));
  const before = serviceCpuUs(service.pid);
  const started = performance.now();
  const create = { model: 'gpt-5.5', input: [userMessage(promptFor(deltas))] };
  await Promise.all(open.map((stream) => stream.turn({ turnId: 't', create })));
  const elapsedMs = performance.now() - started;
  const used = serviceCpuUs(service.pid) - before;
  const events = open.reduce((sum, stream) => sum + stream.events, 0);
  const batches = open.reduce((sum, stream) => sum + stream.batches, 0);
  await Promise.all(open.map((stream) => stream.close()));
  for (const client of clients) client.close();
  return { cpuUs: used / events, perSecond: (events / elapsedMs) * 1000, batch: events / batches };
}

export async function overFloor(
  service: Service,
  streams: number,
  deltas: number,
  prompt = promptFor(deltas),
): Promise<LoadResult> {
  let events = 0;
  let batches = 0;
  const before = cpuUs(service.pid);
  const started = performance.now();
  await eachFloorStream(service, streams, prompt, 1, (bytes) => {
    batches += 1;
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) events += 1;
  });
  const elapsedMs = performance.now() - started;
  const used = cpuUs(service.pid) - before;
  return { cpuUs: used / events, perSecond: (events / elapsedMs) * 1000, batch: events / batches };
}

/** Turns one after the other on each of the streams, through the floor: microseconds of CPU for each. */
export async function floorTurns(
  service: Service,
  streams: number,
  turns: number,
  prompt: string,
): Promise<number> {
  await eachFloorStream(service, streams, prompt, 5, () => {});
  const before = exactCpuUs(service.pid);
  await eachFloorStream(service, streams, prompt, turns, () => {});
  return (exactCpuUs(service.pid) - before) / (streams * turns);
}

async function eachFloorStream(
  service: Service,
  streams: number,
  prompt: string,
  turns: number,
  onMessage: (bytes: Buffer) => void,
): Promise<void> {
  const identity = (value: Buffer) => value;
  const input = [{ role: 'user', content: prompt }];
  const create = Buffer.from(JSON.stringify({ type: 'response.create', model: 'gpt-5.5', input }));
  const clients = Array.from(
    { length: streams },
    () =>
      new Client(service.address, credentials.createInsecure(), {
        'grpc.max_receive_message_length': -1,
        'grpc.use_local_subchannel_pool': 1,
      }),
  );
  await Promise.all(
    clients.map(
      (client) =>
        new Promise<void>((resolve) => {
          const call: ClientDuplexStream<Buffer, Buffer> = client.makeBidiStreamRequest(
            '/floor.Relay/Relay',
            identity,
            identity,
          );
          let left = turns;
          call.on('data', (bytes: Buffer) => {
            onMessage(bytes);
            if (!bytes.includes('"type":"response.completed"')) return;
            left -= 1;
            if (left === 0) call.end();
            else call.write(create);
          });
          call.on('status', () => resolve());
          call.on('error', () => {});
          call.write(create);
        }),
    ),
  );
  for (const client of clients) client.close();
}

export function promptFor(deltas: number): string {
  return `#deltas=${deltas}`;
}
