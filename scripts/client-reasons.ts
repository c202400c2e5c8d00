/**
 * Reasons that the clients find themselves, in all languages the same. Those of the gateway stand in src/errors.ts;
 * a client also concludes some of those before the gateway says them. scripts/generate-reasons.ts makes constants of
 * both.
 */
export interface ClientReason {
  readonly code: string;
  /** What happened, and what to do about it. */
  readonly doc: string;
}

export const CLIENT_REASONS = {
  // The session's life.
  SESSION_CLOSED: { code: 'CANCELLED', doc: 'The program closed the session.' },
  CLIENT_CLOSED: { code: 'CANCELLED', doc: 'The program closed the client that the session belongs to.' },
  CONNECT_TIMEOUT: {
    code: 'DEADLINE_EXCEEDED',
    doc: 'The session was not opened in time: nothing answers, or the peer takes no further stream.',
  },
  UNREACHABLE: {
    code: 'UNAVAILABLE',
    doc: 'No connection to the gateway, or it broke before the session was open.',
  },
  TOKEN_FAILED: { code: 'UNAUTHENTICATED', doc: "The program's token source failed." },
  STREAM_LOST: { code: 'UNAVAILABLE', doc: 'The stream broke and was not resumed in time.' },
  PROTOCOL: { code: 'INTERNAL', doc: 'The gateway broke the protocol, or speaks another version of it.' },
  // One turn.
  EVENTS_LOST: { code: 'DATA_LOSS', doc: 'The session was resumed, but events of the turn are gone.' },
  MESSAGE_NOT_CARRIED: {
    code: 'RESOURCE_EXHAUSTED',
    doc:
      'The stream broke each time after the turn was sent: something on the path does not carry a message of its ' +
      'size (metadata: bytes).',
  },
  TURN_CLOSED: { code: 'CANCELLED', doc: 'The program closed the turn: nobody listens to it any more.' },
  TURN_BUSY: { code: 'FAILED_PRECONDITION', doc: 'The turn has a reader already.' },
  SLOW_READER: {
    code: 'RESOURCE_EXHAUSTED',
    doc:
      'Nobody read the events of the turn while other turns waited, so they were folded into its result. The result ' +
      'is complete.',
  },
  // Tool loops.
  TURN_LIMIT: { code: 'RESOURCE_EXHAUSTED', doc: 'The tool loop reached its limit of turns.' },
  TIME_LIMIT: { code: 'DEADLINE_EXCEEDED', doc: 'The tool loop reached its limit of time.' },
  TOKEN_LIMIT: { code: 'RESOURCE_EXHAUSTED', doc: 'The tool loop reached its limit of tokens.' },
  COST_LIMIT: { code: 'RESOURCE_EXHAUSTED', doc: 'The tool loop reached its limit of money.' },
} as const satisfies Record<string, ClientReason>;
