import {
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  ServerMetricRecorder,
  type StatusObject,
} from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import { loadOf } from '../../src/app/load.ts';
import { startWithAdmin, TestClient } from '../console/scenario.ts';

interface Report {
  readonly cpu_utilization: number;
  readonly mem_utilization: number;
  readonly application_utilization: number;
  readonly rps_fractional: number;
  readonly named_metrics: Readonly<Record<string, number>>;
}

interface Method {
  readonly path: string;
  readonly requestSerialize: (value: object) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Report;
}

/** The method as grpc-js itself defines it, from its own .proto files. */
function ownMethod(): Method {
  const found: Method[] = [];
  const server = {
    addService: ({ StreamCoreMetrics }: Readonly<Record<'StreamCoreMetrics', Method>>) =>
      void found.push(StreamCoreMetrics),
  };
  new ServerMetricRecorder().addToServer(server as never);
  return found[0] as Method;
}

async function open(changes: Readonly<Record<string, unknown>> = {}) {
  const gateway = await startWithAdmin(changes);
  const address = `127.0.0.1:${gateway.grpcPort}`;
  const client = new TestClient(address);
  const raw = new Client(address, credentials.createInsecure());
  onTestFinished(async () => {
    raw.close();
    client.close();
    await gateway.close();
  });
  const { path, requestSerialize, responseDeserialize } = ownMethod();
  const reports = (request: object): ClientReadableStream<Report> =>
    raw.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, new Metadata());
  return { client, raw, reports };
}

test('a client of ORCA hears at once how full the process is, and again in its interval', async () => {
  const { client, reports } = await open();
  const stream = client.connect();
  await stream.opened();
  stream.startTurn({ turn_id: 'long' }, '#hang');
  await stream.event('response.created', 'long');
  // A second at least, whatever is asked for.
  const call = reports({ report_interval: { seconds: 0, nanos: 1 } });
  const heard: Report[] = [];
  let last: Report | undefined;
  for await (const report of call as AsyncIterable<Report>) {
    heard.push(report);
    last = report;
    if (report.named_metrics['turns_running'] === 1) break;
  }
  expect(heard.length).toBeLessThan(30);
  expect(last?.named_metrics).toEqual({ sessions: 1, turns_running: 1 });
  for (const share of [last?.cpu_utilization, last?.mem_utilization, last?.application_utilization]) {
    expect(share).toBeGreaterThan(0);
    expect(share).toBeLessThanOrEqual(1);
  }
});

test('each call ends with a report, for balancers that read no others', async () => {
  const { raw } = await open();
  const same = (bytes: Buffer) => bytes;
  const call = raw.makeBidiStreamRequest('/responses.gateway.v1.ResponsesService/Connect', same, same);
  call.on('error', () => {});
  call.end();
  const ended = await new Promise<StatusObject>((resolve) => call.resume().once('status', resolve));
  const [bytes] = ended.metadata.get('endpoint-load-metrics-bin');
  const { application_utilization: share } = ownMethod().responseDeserialize(bytes as Buffer);
  expect(share).toBeGreaterThan(0);
});

test('without load reports there is no such service', async () => {
  const { reports } = await open({ 'grpc.load_reports': false });
  const call = reports({});
  const error = await new Promise<{ code?: number }>((resolve) => call.once('error', resolve));
  expect(error.code).toBe(12);
});

test('the fullest of its limits makes a process full, and one that takes nothing is', () => {
  const facts = {
    recent: [],
    memoryShare: 0.2,
    connectionShare: 0.1,
    maxSessions: undefined,
    ready: true,
  };
  expect(loadOf(facts).applicationShare).toBe(0.2);
  expect(loadOf({ ...facts, ready: false }).applicationShare).toBe(1);
  const gauges = { sessions: 900, turnsRunning: 3, eventLoopShare: 0.1 };
  const second = (completed: number, failed: number) => ({
    gauges,
    counts: { completed, incomplete: 0, failed, deadlineExceeded: 0, cancelled: 50 },
  });
  const recent = [second(2, 0), second(2, 1), second(0, 0), second(3, 1), second(1, 0)] as never;
  expect(loadOf({ ...facts, recent, maxSessions: 1_000 })).toEqual({
    eventLoopShare: 0.1,
    memoryShare: 0.2,
    applicationShare: 0.9,
    turnsPerSecond: 2,
    failuresPerSecond: 0.4,
    sessions: 900,
    turnsRunning: 3,
  });
});
