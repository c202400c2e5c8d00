import cluster from 'node:cluster';
import { configSchema } from '../config/schema.ts';
import type { FromWorker, Question, ToWorker } from './cluster-messages.ts';
import { EXIT } from './exit-codes.ts';
import { type GatewaySurroundings, type RunningGateway, startGateway } from './gateway.ts';
import { WorkerLimits } from './host-limits.ts';
import { answerOf } from './merged-sessions.ts';
import type { LocalPeers } from './replicas.ts';
import { type StartFailure, startFailure } from './start-failure.ts';

/**
 * One of several processes behind one port. It does what the primary says, and ends with it: signals, which a terminal
 * sends to all processes of a group, are the primary's business, and so is the configuration.
 */
export async function runWorker(surroundings: GatewaySurroundings): Promise<number> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  const started = Promise.withResolvers<Start>();
  const drainAsked = Promise.withResolvers<void>();
  let gateway: RunningGateway | undefined;
  let limits: WorkerLimits | undefined;
  process.on('message', (message: ToWorker) => {
    switch (message.kind) {
      case 'start':
        return started.resolve(message);
      case 'drain':
        return drainAsked.resolve();
      case 'limits':
        return limits?.answered(message.id, message.value);
      case 'ask':
        if (gateway === undefined) return;
        return void answer(gateway, message.question).then(
          (value) => say({ kind: 'answer', id: message.id, value }),
          // The primary goes on without this answer.
          (error: unknown) =>
            gateway?.telemetry.logger.error({ err: error }, 'a worker could not answer the primary'),
        );
    }
  });
  say({ kind: 'booted' });

  const {
    config: input,
    prices,
    logLevel,
    simulatorUrl,
    socketFolder,
    secret,
    hostId,
  } = await started.promise;
  const config = configSchema.parse(input);
  limits = new WorkerLimits(config.workers, (id, call) => say({ kind: 'limits', id, call }));
  try {
    gateway = await startGateway(config, {
      ...surroundings,
      admin: false,
      simulatorUrl,
      limits,
      keyedCalls: limits.keyedCalls,
      prices,
      ...(socketFolder === undefined ? {} : { local: localPeersIn(socketFolder, secret, hostId) }),
    });
  } catch (error) {
    const { exitCode, message }: StartFailure = startFailure(error);
    say({ kind: 'failed', exitCode, message });
    leave();
    return exitCode;
  }
  if (logLevel !== undefined) gateway.telemetry.setLevel(logLevel);
  say({ kind: 'ready', grpcPort: gateway.grpcPort });
  await drainAsked.promise;
  await gateway.drain();
  leave();
  return EXIT.ok;
}

type Start = Extract<ToWorker, { kind: 'start' }>;

/** Closes the channel to the primary, which would keep the process. */
function leave(): void {
  cluster.worker?.disconnect();
}

function localPeersIn(folder: string, secret: string, hostId: string): LocalPeers {
  return {
    hostId,
    workerId: String(cluster.worker?.id ?? 0),
    addressOf: (workerId) => `unix:${folder}/${workerId}.sock`,
    secret: Buffer.from(secret, 'base64url'),
  };
}

async function answer({ sources, telemetry, reload }: RunningGateway, question: Question): Promise<unknown> {
  switch (question.what) {
    case 'reload':
      try {
        await reload(configSchema.parse(question.config), question.prices);
        return '';
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    case 'metrics':
      return telemetry.metricsText();
    case 'sessions':
      return answerOf(sources.sessions, question);
    case 'notReady':
      return sources.notReady();
    case 'setLevel':
      return telemetry.setLevel(question.level);
  }
}

function say(message: FromWorker): void {
  process.send?.(message);
}
