import type { StoreClient } from './client.ts';
import type { Heartbeats } from './types.ts';

/** A process is gone when it has said nothing for this long; whoever cannot reach it need not wait for that. */
const LIFETIME_MS = 10_000;
const INTERVAL_MS = 3_000;

export interface Heartbeat extends Heartbeats {
  /** Says at once that the process is gone, and no more that it is there. */
  stop(): Promise<void>;
}

export interface HeartbeatOptions {
  /** New at every start: an id that is used again would hide that its owner has died. */
  readonly processId: string;
  /** Where the other processes reach this one. */
  readonly address: string;
  readonly lifetimeMs?: number;
  readonly intervalMs?: number;
}

/** One key for each process, not for each session. The first beat is on its way when this returns. */
export function startHeartbeat(client: StoreClient, options: HeartbeatOptions): Heartbeat {
  const { processId, address, lifetimeMs = LIFETIME_MS, intervalMs = INTERVAL_MS } = options;
  const keyOf = (id: string) => client.key(`process:${id}`);
  const key = keyOf(processId);
  let stopped = false;
  const beat = () => {
    if (stopped) return;
    client.command(key, ['SET', key, address, 'PX', String(lifetimeMs)]).catch(() => {
      // The next one comes soon.
    });
  };
  beat();
  const timer = setInterval(beat, intervalMs);
  timer.unref();
  const unlisten = client.onEpoch(beat);
  return {
    async addressOf(id) {
      const reply = await client.command(keyOf(id), ['GET', keyOf(id)]);
      return typeof reply === 'string' ? reply : undefined;
    },
    async stop() {
      stopped = true;
      clearInterval(timer);
      unlisten();
      await client.command(key, ['UNLINK', key]).catch(() => {});
    },
  };
}
