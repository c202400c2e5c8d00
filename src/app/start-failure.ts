import { AccessOptionsError } from '../access/options.ts';
import { formatHostPort, type HostPort } from '../config/units.ts';
import { GatewayError } from '../errors.ts';
import { EXIT } from './exit-codes.ts';
import { ListenError } from './gateway.ts';

/** What an operator is told when the gateway cannot start, and the exit code that it means. */
export interface StartFailure {
  readonly exitCode: number;
  readonly message: string;
}

/** A worker could not start; what it said. */
export class WorkerStartError extends Error {
  override readonly name = 'WorkerStartError';
  readonly failure: StartFailure;

  constructor(failure: StartFailure) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Throws again what is nobody's mistake but ours. */
export function startFailure(error: unknown): StartFailure {
  if (error instanceof ListenError) {
    return { exitCode: EXIT.failure, message: explainListenError(error.cause, error.address) };
  }
  // What the schema cannot see: unusable keys, certificates that do not fit, headers that are not allowed.
  if (error instanceof AccessOptionsError || error instanceof RangeError || error instanceof GatewayError) {
    return { exitCode: EXIT.usage, message: `error: ${error.message}` };
  }
  throw error;
}

/** One line: what failed, where, and what helps. */
export function explainListenError(error: unknown, address: HostPort): string {
  const where = formatHostPort(address);
  switch (codeOf(error)) {
    case 'EADDRINUSE':
      return `error: ${where} is in use by another process; stop it, or choose another address (port 0: any free one)`;
    case 'EACCES':
      return `error: no permission to listen on ${where}; ports under 1024 need a privilege, choose a higher one`;
    case 'EADDRNOTAVAIL':
      return `error: ${where} is not an address of this machine; 0.0.0.0 or [::] listen on all of them`;
    case 'ENOTFOUND':
      return `error: the host of ${where} cannot be resolved`;
    default:
      return `error: could not listen on ${where}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** grpc-js only has the code in the text of its errors. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = (error as NodeJS.ErrnoException).code;
  return typeof code === 'string' ? code : /\b(E[A-Z]{4,})\b/.exec(error.message)?.[1];
}
