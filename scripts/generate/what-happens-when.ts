/** Writes docs/what-happens-when.md from the tables of the code: legal steps of each machine, and what refusals mean. */
import { LINK_TRANSITIONS } from '../../src/core/link-slot.ts';
import { STREAM_TRANSITIONS } from '../../src/core/stream.ts';
import { STEER_TRANSITIONS, TURN_TRANSITIONS } from '../../src/core/turn.ts';
import {
  isPermanentStatus,
  NAMED,
  provesNotRun,
  type Road,
  reasonOfClose,
  reasonOfCode,
  reasonOfStatus,
} from '../../src/dialect/reasons.ts';
import { write } from './write.ts';

type Steps = Readonly<Record<string, readonly string[]>>;

/** A code of each class that the table of statuses does not name. */
const OTHERS = [
  ['other 4xx', 418],
  ['other 5xx', 500],
  ['anything else', 302],
] as const;

/** 1000 to 1015 are WebSocket's own, 3000 and above the applications'. */
const CLOSE_CODES = [
  1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3003, 4402,
];

/** What the core does about it, where it is more than a reason. */
const BREAKS: readonly (readonly [what: string, then: string])[] = [
  [
    '`previous_response_not_found` in any spelling, as an error frame, a failed response or an HTTP answer',
    "the id is avoided, and every other that only the upstream's store would have; the turn is written once more with a replay",
  ],
  [
    'a refusal of the history itself (encrypted content, ids, calls without output)',
    'the turn is written once more in a milder form, with a `replayed` Notice',
  ],
  ['close 1009', '`FRAME_TOO_LARGE` for the turn whose frame it was, a lost link for the others'],
  [
    'connection limit frame',
    'link takes no more turns, what had no `response.created` is written again elsewhere, what runs may finish',
  ],
  ['link lost before `response.created`', 'turn fails `UNKNOWN`'],
  ['link lost after it', 'turn fails `UNSAFE`'],
  [
    'turn never written, or its HTTP request found nobody',
    'it stays queued; after `maxDialAttempts` it waits for another link, or without one fails `SAFE`',
  ],
  [
    'circuit open, or a dial is told to wait longer than 10 s',
    'turns that do not `wait_on_rate_limit` fail `SAFE` with `retry_after`; a session that recovers waits for the first probes',
  ],
  ['4xx before `response.created`', 'turn fails `SAFE`'],
  ['5xx before `response.created`', 'turn fails `UNKNOWN`'],
  [
    '429 or overload, `wait_on_rate_limit`',
    "lane waits as long as the upstream says, within the turn's timeout",
  ],
];

write({ 'docs/what-happens-when.md': page() });

function page(): string {
  return [
    '# What happens when',
    '',
    'Written by `npm run generate` from the tables of the code; do not edit. The story that these tables are part of is in',
    '[life-of-a-turn.md](life-of-a-turn.md).',
    '',
    '## The machines',
    '',
    'Each state has one writer, which refuses every step that is not drawn here.',
    '',
    ...machine(
      'Turn',
      'src/core/turn.ts',
      TURN_TRANSITIONS,
      'What the client was told. `queued`: not written. `sent`: written, nothing heard. `running`: the response has begun. `settling`: the response is over, a steer of it is undecided. Steps back to `queued` need a proof that nothing ran.',
    ),
    ...machine(
      'Stream',
      'src/core/stream.ts',
      STREAM_TRANSITIONS,
      "What one link's upstream does for one lane. `abandoned`: the client has heard the end of its turn, the upstream has not finished. `warmUp`: a create of ours that generates nothing.",
    ),
    ...machine(
      'Link',
      'src/core/link-slot.ts',
      LINK_TRANSITIONS,
      'A connection. `rotating`: its successor is prepared. `retiring`: it takes no more turns and closes with its last one. A link that is lost leaves the table.',
    ),
    ...machine(
      'Steer',
      'src/core/turn.ts',
      STEER_TRANSITIONS,
      'More input for a running turn. `held`: the response has no id yet. A steer that is decided leaves its turn.',
    ),
    '## When something breaks',
    '',
    '| what | then |',
    '|---|---|',
    ...BREAKS.map(([what, then]) => `| ${what} | ${then} |`),
    '',
    'A new session goes to the first upstream on its route that answers. A live one stays where it is: it moves only when it',
    'has no link left, after two failed dials or when the circuit there is open, and takes its conversations along as replays.',
    'The model of its first turn may still change the upstream that was dialled before it was known.',
    '',
    '## What a refusal means',
    '',
    'An error code that is known decides first, then the HTTP status. What each reason asks for is in [errors.md](errors.md).',
    '',
    '"Upgrade" is the answer to a WebSocket handshake, "request" an error frame, an HTTP answer or an event of its stream,',
    '"response.failed" a response that had begun. "Not run" says whether it proves that a request did not run: then it may',
    'be written again, and the replay verdict of a failed turn is SAFE. "Configuration" says whether a handshake refused so',
    'will be refused again until somebody changes something.',
    '',
    '| status | upgrade | request | response.failed | not run | configuration |',
    '|---|---|---|---|---|---|',
    ...NAMED.statuses.toSorted((a, b) => a - b).map((status) => statusRow(String(status), status)),
    ...OTHERS.map(([name, status]) => statusRow(name, status)),
    '',
    '| error codes and types | reason |',
    '|---|---|',
    ...codeRows(),
    '',
    '| close code | reason |',
    '|---|---|',
    ...CLOSE_CODES.map((code) => `| ${code} | \`${reasonOfClose(code)}\` |`),
    `| any other | \`${reasonOfClose(4999)}\` |`,
    '',
    'A close of 1009 is told as `FRAME_TOO_LARGE` to the turn whose frame was too large, and to no other.',
    '',
  ].join('\n');
}

function machine(name: string, file: string, steps: Steps, text: string): readonly string[] {
  const arrows = Object.entries(steps).flatMap(([from, next]) =>
    next.length === 0
      ? [`    ${from} --> [*]`]
      : next.filter((to) => to !== from).map((to) => `    ${from} --> ${to}`),
  );
  return [
    `### ${name}`,
    '',
    `\`${file}\`. ${text}`,
    '',
    '```mermaid',
    'stateDiagram-v2',
    `    [*] --> ${Object.keys(steps)[0]}`,
    ...arrows,
    '```',
    '',
  ];
}

function statusRow(name: string, status: number): string {
  const reasons = (['upgrade', 'frame', 'failed'] satisfies Road[]).map(
    (road) => `\`${reasonOfStatus(status, road)}\``,
  );
  const yes = (holds: boolean) => (holds ? 'yes' : '');
  return `| ${[name, ...reasons, yes(provesNotRun(status)), yes(isPermanentStatus(status))].join(' | ')} |`;
}

function codeRows(): readonly string[] {
  const byReason = Map.groupBy(NAMED.codes, reasonOfCode);
  return [...byReason].map(
    ([reason, codes]) => `| ${codes.map((code) => `\`${code}\``).join(', ')} | \`${reason}\` |`,
  );
}
