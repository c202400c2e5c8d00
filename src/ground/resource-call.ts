/** A request of the resource beside its creates, relative to the base URL (upstream.md#the-rest-of-the-resource). */
export interface ResourceCall {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** Of the path, not encoded. */
  readonly path: readonly ['models'] | readonly ['responses', ...string[]];
  readonly query?: readonly (readonly [name: string, value: string])[];
  /** Default JSON. */
  readonly accept?: 'application/json' | 'text/event-stream';
  readonly body?: string | undefined;
}
