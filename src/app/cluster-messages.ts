import type { SessionSource } from '../admin/source.ts';
import type { ConfigInput } from '../config/schema.ts';
import type { LimitsCall } from './host-limits.ts';

/** What primary and workers say to each other. */
export type ToWorker =
  | {
      readonly kind: 'start';
      /** What the primary goes by: the files may be others by now, or wrong. */
      readonly config: ConfigInput;
      /** Text of the price table. */
      readonly prices: string | undefined;
      readonly logLevel: string | undefined;
      readonly simulatorUrl: string | undefined;
      /** Folder of the sockets by which workers reach each other; undefined: they cannot. */
      readonly socketFolder: string | undefined;
      /** Base64url. */
      readonly secret: string;
      /** Names the workers of this machine among those of others. */
      readonly hostId: string;
    }
  | { readonly kind: 'ask'; readonly id: number; readonly question: Question }
  | { readonly kind: 'limits'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'drain' };

/** A method of a worker's sessions, by name. */
export type SourceQuestion = {
  [Method in keyof SessionSource]: {
    readonly what: 'sessions';
    readonly method: Method;
    readonly args: Parameters<SessionSource[Method]>;
  };
}[keyof SessionSource];

export type Question =
  | { readonly what: 'metrics' | 'notReady' }
  /** Answered with what was wrong; empty: the worker goes by it. */
  | { readonly what: 'reload'; readonly config: ConfigInput; readonly prices: string | undefined }
  | SourceQuestion
  | { readonly what: 'setLevel'; readonly level: string };

export type FromWorker =
  /** Listens; waits for `start`. */
  | { readonly kind: 'booted' }
  | { readonly kind: 'ready'; readonly grpcPort: number }
  | { readonly kind: 'failed'; readonly exitCode: number; readonly message: string }
  | { readonly kind: 'limits'; readonly id: number; readonly call: LimitsCall }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown };
