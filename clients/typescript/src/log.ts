/** What a {@link Logger} is told. */
export type LogLevel = 'info' | 'warn' | 'error';
/** Takes what happens to sessions, and what the program's own callbacks throw. */
export type Logger = (level: LogLevel, message: string, error?: unknown) => void;

export type Log = Logger;

/** A logger that never throws. Without one of the program's own, warnings and errors become warnings of the process. */
export function logOf(logger: Logger | undefined): Log {
  return (level, message, error) => {
    try {
      if (logger) logger(level, message, error);
      else if (level !== 'info') process.emitWarning(error === undefined ? message : `${message}: ${error}`);
    } catch {
      // There is nobody else to tell.
    }
  };
}
