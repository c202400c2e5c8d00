import { formatHostPort, type HostPort } from '../config/units.ts';

/** One line for the operator: what failed, where, and what helps. */
export function explainStartError(error: unknown, address: HostPort): string {
  const where = formatHostPort(address);
  const code = codeOf(error);
  switch (code) {
    case 'EADDRINUSE':
      return `error: ${where} is in use by another process; stop it, or choose another address (port 0: any free one)`;
    case 'EACCES':
      return `error: no permission to listen on ${where}; ports under 1024 need a privilege, choose a higher one`;
    case 'EADDRNOTAVAIL':
      return `error: ${where} is not an address of this machine; 0.0.0.0 or [::] listen on all of them`;
    case 'ENOTFOUND':
      return `error: the host of ${where} cannot be resolved`;
    default:
      return `error: could not start: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** grpc-js only has the code in the text of its errors. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = (error as NodeJS.ErrnoException).code;
  return typeof code === 'string' ? code : /\b(E[A-Z]{4,})\b/.exec(error.message)?.[1];
}
