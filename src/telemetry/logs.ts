import pino, { type LevelWithSilent, type Logger, type LoggerOptions } from 'pino';
import { LogOutput, type LogTarget } from './log-output.ts';
import type { TelemetrySettings } from './options.ts';
import { scrubLine, stripControls } from './scrub.ts';

export interface Logs {
  readonly logger: Logger;
  /** The line of every turn, at level info: pino takes four times as long for the same text. */
  readonly info: InfoLine;
  /** Gives each further line to somebody else as well, as JSON without secrets. */
  copyTo(take: (line: string) => void): void;
  /** The same lines, at whatever level the others are. */
  readonly audit: Logger;
  setLevel(level: string): boolean;
  /** Repeated warnings that were not written. */
  suppressed(): number;
  /** Lines that were not written because nobody took them in time. */
  dropped(): number;
}

/** `fields` are members of a JSON object, at least one, without its braces and without secrets (`scrubLine`). */
export interface InfoLine {
  readonly enabled: boolean;
  write(fields: string, message: string): void;
}

const FLUSH_INTERVAL_MS = 50;
const MAX_BUFFERED_CHARACTERS = 64 * 1024;
const INFO = 30;
const WARN = 40;
const METADATA: unique symbol = Symbol.for('pino.metadata');
// Codes are few; messages with changing text must not make the table grow.
const MAX_REMEMBERED_WARNINGS = 256;
// Dead children are looked for when their number has doubled, so that the cost for each stays constant.
const FIRST_PRUNE = 1_024;

export async function createLogs(settings: TelemetrySettings['logs']): Promise<Logs> {
  const output = settings.destination === undefined ? standardError() : undefined;
  const repeats = repeatedWarnings(settings.repeatWarnMs);
  const children = new Set<WeakRef<Logger>>();
  let copy: ((line: string) => void) | undefined;
  let pruneAt = FIRST_PRUNE;
  const remember = (child: Logger): void => {
    children.add(new WeakRef(child));
    if (children.size < pruneAt) return;
    for (const reference of children) if (reference.deref() === undefined) children.delete(reference);
    pruneAt = Math.max(FIRST_PRUNE, children.size * 2);
  };
  const writer = await lineWriter(settings, output, (line) => copy?.(line));
  const logger = pino(
    {
      ...LINES,
      level: isLevel(settings.level) ? settings.level : 'info',
      hooks: {
        logMethod(args, method, level) {
          const suppressed = level === WARN ? repeats.pass(args[0], args[1]) : 0;
          if (suppressed === undefined) return;
          if (suppressed > 0 && typeof args[0] === 'object' && args[0] !== null) {
            args[0] = { ...args[0], suppressed };
          }
          method.apply(this, args);
        },
      },
      // Levels of children are their own: setLevel has to reach them.
      onChild: remember,
    },
    writer,
  );
  if (output !== undefined) {
    output.onCaughtUp = (missed) =>
      logger.warn({ code: 'log_lines_dropped', lines: missed }, 'whoever reads the log was too slow for it');
  }
  return {
    logger,
    info: {
      get enabled() {
        return logger.isLevelEnabled('info');
      },
      write(fields, message) {
        const line = `{"level":"info"${isoTime()}${PID}${fields},"msg":"${message}"}\n`;
        if (writer instanceof LineBuffer) writer.writeClean(line, INFO);
        else writer.write(line);
      },
    },
    copyTo(take) {
      copy = take;
    },
    audit: pino({ ...LINES, level: 'info' }, writer),
    setLevel(level) {
      if (!isLevel(level)) return false;
      logger.level = level;
      for (const reference of children) {
        const child = reference.deref();
        if (child === undefined) children.delete(reference);
        else child.level = level;
      }
      return true;
    },
    suppressed: repeats.total,
    dropped: () => output?.dropped ?? 0,
  };
}

const PID = `,"pid":${process.pid},`;

let second = Number.NaN;
let secondText = '';

/** As pino's own; what is made anew for each line is its milliseconds. */
function isoTime(): string {
  const nowMs = Date.now();
  const now = Math.floor(nowMs / 1_000);
  if (now !== second) {
    second = now;
    secondText = new Date(nowMs).toISOString().slice(0, -4);
  }
  const ms = nowMs - now * 1_000;
  return `,"time":"${secondText}${ms < 10 ? '00' : ms < 100 ? '0' : ''}${ms}Z"`;
}

/** What all lines have. */
const LINES: LoggerOptions = {
  base: { pid: process.pid },
  timestamp: isoTime,
  formatters: { level: (label) => ({ level: label }) },
  serializers: { err: errorFields },
};

let opened: LogOutput | undefined;

/** One for the process: what it has to hold back is counted once. */
function standardError(): LogOutput {
  opened ??= new LogOutput(process.stderr);
  return opened;
}

function isLevel(level: string): level is LevelWithSilent {
  return level === 'silent' || Object.hasOwn(pino.levels.values, level);
}

/** Names and codes only: the text of an unexpected error may hold content. */
function errorFields(error: unknown): unknown {
  if (!(error instanceof Error)) return { type: typeof error };
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const reason = 'reason' in error && typeof error.reason === 'string' ? error.reason : undefined;
  const frames = error.stack?.split('\n').filter((line) => /^\s+at /.test(line));
  return { type: error.name, code, reason, stack: frames?.join('\n') };
}

async function lineWriter(
  settings: TelemetrySettings['logs'],
  output: LogOutput | undefined,
  copy: (line: string) => void,
): Promise<LogTarget> {
  const clean = (line: string): string => {
    const scrubbed = scrubLine(line);
    copy(scrubbed);
    return scrubbed;
  };
  const pretty = settings.pretty ?? (output !== undefined && process.stderr.isTTY === true);
  const target = settings.destination ?? (output as LogOutput);
  if (!pretty) {
    return output === undefined
      ? { write: (line) => target.write(clean(line)) }
      : new LineBuffer(output, clean, copy);
  }
  const { prettyFactory } = await import('pino-pretty');
  const render = prettyFactory({
    colorize: output !== undefined && process.env.NO_COLOR === undefined,
    translateTime: 'SYS:HH:MM:ss.l',
    ignore: 'pid',
    singleLine: true,
  });
  return { write: (line) => target.write(render(stripControls(clean(line))) ?? '') };
}

/**
 * Lines of a process that nobody watches go out together: a write to a pipe takes longer than the rest of a turn's line.
 * Warnings, and what comes before them, go at once; a process that is killed loses the last moment.
 */
class LineBuffer implements LogTarget {
  /** Asks pino to tell the level of each line. */
  readonly [METADATA] = true;
  lastLevel = 0;
  readonly #target: LogTarget;
  readonly #clean: (line: string) => string;
  readonly #copy: (line: string) => void;
  #lines = '';
  #timer: NodeJS.Timeout | undefined;
  #flushesAtExit = false;

  /** `clean` tells `copy` of the line as well. */
  constructor(target: LogTarget, clean: (line: string) => string, copy: (line: string) => void) {
    this.#target = target;
    this.#clean = clean;
    this.#copy = copy;
  }

  write(line: string): void {
    this.#add(this.#clean(line));
  }

  /** A line without secrets. */
  writeClean(line: string, level: number): void {
    this.lastLevel = level;
    this.#copy(line);
    this.#add(line);
  }

  #add(line: string): void {
    this.#lines += line;
    if (!this.#flushesAtExit) process.once('exit', () => this.#flush());
    this.#flushesAtExit = true;
    if (this.lastLevel >= WARN || this.#lines.length > MAX_BUFFERED_CHARACTERS) return this.#flush();
    this.#timer ??= setTimeout(() => this.#flush(), FLUSH_INTERVAL_MS).unref();
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#lines !== '') this.#target.write(this.#lines);
    this.#lines = '';
  }
}

function repeatedWarnings(windowMs: number) {
  const seen = new Map<string, { since: number; suppressed: number }>();
  let total = 0;
  return {
    total: () => total,
    /** How many like it were held back since the last that passed; undefined: hold this back too. */
    pass(fields: unknown, message: unknown): number | undefined {
      const key = warningKey(fields, message);
      const now = performance.now();
      const last = seen.get(key);
      if (last !== undefined && now - last.since < windowMs) {
        last.suppressed += 1;
        total += 1;
        return undefined;
      }
      if (last === undefined && seen.size >= MAX_REMEMBERED_WARNINGS) seen.clear();
      seen.set(key, { since: now, suppressed: 0 });
      return last?.suppressed ?? 0;
    },
  };
}

/** Warnings that differ in one of these are not repeats. All are from short lists. */
const TELLING_FIELDS = ['code', 'upstream', 'reason', 'limit', 'tenant', 'port', 'why'];

function warningKey(fields: unknown, message: unknown): string {
  if (typeof fields === 'string') return fields;
  if (typeof fields !== 'object' || fields === null) return String(message);
  const values = fields as Readonly<Record<string, unknown>>;
  if (typeof values['code'] !== 'string') return String(message);
  return TELLING_FIELDS.map((name) => (typeof values[name] === 'string' ? values[name] : '')).join(' ');
}
