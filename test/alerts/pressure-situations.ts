import { connect, type Socket } from 'node:net';
import { startSimulator } from '../../src/simulator/index.ts';
import type { TestClient, TestStream } from '../harness/client.ts';
import { type Defer, type OpenGateway, pause } from './play.ts';
import { type Situation, upstreamAt } from './situations.ts';

/** What is nearly used up: a client's patience, lanes, connections, descriptors. */
export function pressureSituations(): Readonly<Record<string, Situation>> {
  return {
    'clients that stand still': slowClients(),
    'turns that wait for the one before': {
      alerts: ['TurnsWait'],
      during: async ({ stream, next }) => {
        const turns = Array.from({ length: 4 }, next);
        for (const turn_id of turns) stream.startTurn({ turn_id }, '#ttft=800');
        for (const turnId of turns) await stream.turn(turnId);
      },
    },
    'nearly as many connections as there may be': fullOfConnections(),
    'nearly as many descriptors as the process may have': fullOfDescriptors(),
  };
}

/** One that does not mind when its pings wait. */
async function upstreamOf(defer: Defer): Promise<Readonly<Record<string, unknown>>> {
  const simulator = await startSimulator({ switches: { pingIntervalMs: 0 } });
  defer(() => simulator.close());
  return upstreamAt(simulator.url);
}

/** Each stands still for longer than the five seconds that are too many, again and again, and then reads all there is. */
function slowClients(): Situation {
  const STILL_MS = 7_500;
  const PERIOD_MS = 9_000;
  let streams: TestStream[] | undefined;
  const timers: NodeJS.Timeout[] = [];
  const readSlowly = ({ connect }: OpenGateway, number: number): TestStream => {
    const stream = connect().connect();
    const standStill = () => {
      stream.call.pause();
      setTimeout(() => stream.call.resume(), STILL_MS);
    };
    // Faster ones would fill the buffer while they are read, too.
    stream.startTurn({ turn_id: 'long' }, '#deltas=1000000 #tps=600');
    setTimeout(() => timers.push(setInterval(standStill, PERIOD_MS)), 1_000 * number);
    return stream;
  };
  return {
    alerts: ['ClientsAreSlow'],
    // Pings wait behind what nobody reads.
    also: ['UpstreamFailsTurns'],
    settings: async (defer) => {
      defer(() => timers.forEach(clearInterval));
      return {
        ...(await upstreamOf(defer)),
        session: { max_buffered: '64KiB', slow_client_timeout: '10m' },
      };
    },
    during: async (gateway) => {
      streams ??= Array.from({ length: 9 }, (_, number) => readSlowly(gateway, number));
      await pause();
    },
    after: async () => {
      timers.forEach(clearInterval);
      for (const stream of streams ?? []) stream.send({ cancel_turn: { turn_id: 'long' } });
    },
  };
}

function fullOfConnections(): Situation {
  const clients: TestClient[] = [];
  return {
    alerts: ['ConnectionsNearTheirLimit'],
    settings: () => ({ grpc: { max_connections: 10 } }),
    during: async ({ connect }) => {
      // One is there already.
      while (clients.length < 8) {
        const client = connect();
        clients.push(client);
        await client.connect().opened();
      }
      await pause();
    },
    after: async () => {
      for (const client of clients) client.close();
    },
  };
}

function fullOfDescriptors(): Situation {
  const descriptors = 200;
  let sockets: Socket[] | undefined;
  return {
    alerts: ['DescriptorsNearTheirLimit'],
    limits: { descriptors },
    settings: () => ({ grpc: { max_connections: 1_000 } }),
    during: async ({ port, read }) => {
      const free = 0.9 * descriptors - (await read('responses_gateway_descriptors'));
      sockets ??= Array.from({ length: free }, () => connect(port, '127.0.0.1').on('error', () => {}));
      await pause();
    },
    after: async () => {
      for (const socket of sockets ?? []) socket.destroy();
    },
  };
}
