/**
 * Reasons that the clients find themselves, in all languages the same. Those of the gateway stand in src/errors.ts;
 * a client also concludes some of those before the gateway says them. reasons.ts makes constants of
 * both.
 */
export interface ClientReason {
  readonly code: string;
  /** What happened, and what to do about it. */
  readonly doc: string;
}

export const CLIENT_REASONS = {
  STREAM_LOST: { code: 'UNAVAILABLE', doc: 'The stream broke and could not be resumed in time.' },
  UNREACHABLE: {
    code: 'UNAVAILABLE',
    doc: 'No gateway answered at this address, or something in between refused the stream.',
  },
  CONNECT_TIMEOUT: { code: 'DEADLINE_EXCEEDED', doc: 'The session was not open in time.' },
  TOKEN_SOURCE_FAILED: {
    code: 'UNAUTHENTICATED',
    doc: "The program's own token source raised an error or did not answer in time.",
  },
  SESSION_CLOSED: { code: 'CANCELLED', doc: 'The session was closed by the program.' },
  CLIENT_CLOSED: {
    code: 'CANCELLED',
    doc: 'The client that the session belongs to was closed by the program.',
  },
  TURN_CLOSED: { code: 'CANCELLED', doc: 'The turn was closed by the program.' },
  TURN_BUSY: { code: 'FAILED_PRECONDITION', doc: 'The turn already has a reader.' },
  TURN_UNDELIVERED: {
    code: 'UNAVAILABLE',
    doc: "Each stream that carried the turn's start was lost before the gateway had it. Metadata has `bytes` and `attempts`.",
  },
  READER_TOO_SLOW: {
    code: 'RESOURCE_EXHAUSTED',
    doc: "The turn's events were dropped because their reader held up other lanes. Its result is complete.",
  },
  EVENTS_LOST: { code: 'DATA_LOSS', doc: 'The session was resumed, but events of the turn are gone.' },
  PROTOCOL: { code: 'INTERNAL', doc: 'The gateway broke the protocol.' },
  WAIT_TIMEOUT: {
    code: 'DEADLINE_EXCEEDED',
    doc: "The caller's own wait ran out. Nothing is lost; the work goes on.",
  },
  LOOP_TURN_LIMIT: {
    code: 'CANCELLED',
    doc: 'A tool loop had its number of turns and the model still called functions.',
  },
  LOOP_TIME_LIMIT: { code: 'DEADLINE_EXCEEDED', doc: 'A tool loop had its time.' },
  LOOP_TOKEN_LIMIT: {
    code: 'RESOURCE_EXHAUSTED',
    doc: 'A tool loop had its tokens and the model still called functions.',
  },
  LOOP_COST_LIMIT: {
    code: 'RESOURCE_EXHAUSTED',
    doc: 'A tool loop had cost what it may and the model still called functions.',
  },
} as const satisfies Record<string, ClientReason>;
