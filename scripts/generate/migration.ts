/** Writes docs/migration, a page per language, from the programs in the examples/migration folders of the clients. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { write } from './write.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

interface Language {
  readonly name: string;
  readonly folder: string;
  readonly fence: string;
  readonly sdk: string;
  readonly before: string;
  readonly after: string;
  /** What to know when changing over, beside what the programs show. */
  readonly notes: readonly string[];
}

const SHARED = [
  'A session keeps the conversation: `previous_response_id`, or sending everything again, is gone. Each lane is a conversation of its own.',
  "The provider's key stays with the gateway. Programs have a gateway key (`RESPONSES_GATEWAY_TOKEN`) or none.",
  "Retries by the SDK's rule are gone. A turn that certainly did not run may be started again, and the error says so.",
];

const LANGUAGES: readonly Language[] = [
  {
    name: 'Go',
    folder: 'go',
    fence: 'go',
    sdk: 'openai-go 3.98',
    before: 'before/main.go',
    after: 'after/main.go',
    notes: [
      'Errors: `*openai.Error` with a status becomes `*gateway.Error` with a reason; `gateway.RetrySafe` repeats what did not run.',
    ],
  },
  {
    name: 'Java',
    folder: 'java',
    fence: 'java',
    sdk: 'openai-java 4.0',
    before: 'Before.java',
    after: 'After.java',
    notes: [
      'Errors: `OpenAIServiceException` with a status becomes `TurnException` or `StreamException` with a reason; `Retry.whenSafe` repeats what did not run.',
    ],
  },
  {
    name: 'Python',
    folder: 'python',
    fence: 'python',
    sdk: 'openai 3.57',
    before: 'before.py',
    after: 'after.py',
    notes: [
      'Errors: `openai.APIStatusError` becomes `TurnError` or `SessionError` with a reason; `lane.run` repeats what did not run.',
      '`responses_gateway.aio` has the same names for asyncio, as `AsyncOpenAI` has.',
    ],
  },
  {
    name: 'TypeScript',
    folder: 'typescript',
    fence: 'ts',
    sdk: 'openai 7.57',
    before: 'before.ts',
    after: 'after.ts',
    notes: [
      'Errors: `APIError` with a status becomes `TurnError` or `StreamError` with a reason; `lane.run` repeats what did not run.',
    ],
  },
];

write(
  Object.fromEntries(LANGUAGES.map((language) => [`docs/migration/${language.folder}.md`, page(language)])),
);

function page({ name, folder, fence, sdk, before, after, notes }: Language): string {
  const read = (file: string) =>
    readFileSync(`${ROOT}clients/${folder}/examples/migration/${file}`, 'utf8')
      .replace("'../../src/index.ts'", "'@responses-gateway/client'")
      .trimEnd();
  const [old, ours] = [read(before), read(after)];
  const lines = (text: string) => text.split('\n').filter((line) => line.trim() !== '').length;
  return [
    `# From the OpenAI SDK to the gateway: ${name}`,
    '',
    `<!-- Written by \`npm run generate\` from clients/${folder}/examples/migration; do not edit. -->`,
    '',
    `The same program twice: a streamed conversation, a tool loop, and a structured answer. With ${sdk} it has ${lines(old)} lines,`,
    `with the gateway's client ${lines(ours)}. Both print the same against the simulator.`,
    '',
    ...[...SHARED, ...notes].map((note) => `- ${note}`),
    '',
    '## Before',
    '',
    `\`\`\`${fence}`,
    old,
    '```',
    '',
    '## After',
    '',
    `\`\`\`${fence}`,
    ours,
    '```',
    '',
  ].join('\n');
}
