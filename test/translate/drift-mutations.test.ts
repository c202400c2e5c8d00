import { describe, expect, test } from 'vitest';
import { findDrift } from '../../scripts/schema-drift.ts';

const STABLE = 'responses/responses.d.ts';
const BETA = 'beta/responses/responses.d.ts';

/** What a future SDK may have: a text of its declarations, and what stands there then. */
interface Mutation {
  readonly kind: string;
  readonly file: string;
  readonly from: RegExp;
  readonly to: string;
}

const member = (kind: string, file: string, type: string, line: string): Mutation => ({
  kind,
  file,
  from: new RegExp(`(interface ${type} (?:extends [^{]+ )?\\{)`),
  to: `$1\n    ${line}`,
});
const arm = (kind: string, file: string, union: string, type: string): Mutation => ({
  kind,
  file,
  from: new RegExp(`(export type ${union} = )`),
  to: `export interface Mutant { type: '${type}'; extra: string; }\n$1Mutant | `,
});
const literal = (kind: string, file: string, before: string, value: string): Mutation => ({
  kind,
  file,
  from: new RegExp(`(${before})`),
  to: `$1'${value}' | `,
});

const MUTATIONS: readonly Mutation[] = [
  arm('arm of the server events', STABLE, 'ResponsesServerEvent', 'response.dreamt'),
  arm('arm of the server events', BETA, 'BetaResponsesServerEvent', 'response.agent.spawned'),
  arm('arm of the client events', STABLE, 'ResponsesClientEvent', 'response.pause'),
  arm('arm of the client events', BETA, 'BetaResponsesClientEvent', 'response.fork'),
  arm('kind of input item', STABLE, 'ResponseInputItem', 'telepathy_call_output'),
  arm('kind of input item', BETA, 'BetaResponseInputItem', 'agent_vote'),
  arm('kind of output item', STABLE, 'ResponseOutputItem', 'telepathy_call'),
  arm('kind of output item', BETA, 'BetaResponseOutputItem', 'agent_verdict'),
  arm('kind of stored item', STABLE, 'ResponseItem', 'telepathy_memory'),
  arm('kind of tool', STABLE, 'Tool', 'telepathy'),
  arm('kind of tool choice', STABLE, 'ToolChoiceOptions', 'telepathy'),
  member('field of a server event', STABLE, 'ResponseTextDeltaEvent', 'confidence?: number;'),
  member('field of a server event', STABLE, 'ResponseSteerPendingEvent', 'deadline?: number;'),
  member('field of a server event', BETA, 'BetaResponseInjectFailedEvent', 'retryable?: boolean;'),
  member('field of a client event', STABLE, 'ResponseSteerEvent', 'priority?: number;'),
  member('field of a client event', BETA, 'BetaResponseInjectEvent', 'agent?: string;'),
  member('field of a create', STABLE, 'ResponseCreate', 'mood?: string;'),
  member('field of a create', STABLE, 'ResponseCreateParamsBase', 'mood?: string;'),
  member('field of a response', STABLE, 'Response', 'mood?: string;'),
  member('field of an item', STABLE, 'ResponseFunctionToolCall', 'mood?: string;'),
  member('field of an item', STABLE, 'ResponseReasoningItem', 'mood?: string;'),
  member('field deep inside', STABLE, 'ResponseUsage', 'watts?: number;'),
  member('field deep inside', STABLE, 'ResponseInputImage', 'mood?: string;'),
  member('query parameter', STABLE, 'ResponseRetrieveParamsBase', 'ending_before?: number;'),
  member('query parameter', 'responses/input-items.d.ts', 'InputItemListParams', 'kind?: string;'),
  member('field of another call', 'responses/input-tokens.d.ts', 'InputTokenCountParams', 'mood?: string;'),
  member('field of another call', STABLE, 'ResponseCompactParams', 'mood?: string;'),
  member('field of another answer', 'models.d.ts', 'Model', 'mood?: string;'),
  literal('literal of a status', STABLE, 'export type ResponseStatus = ', 'paused'),
  literal(
    'literal of a failure',
    STABLE,
    "code: (?='server_error' \\| 'rate_limit_exceeded')",
    'out_of_ideas',
  ),
  literal('literal of a steer', STABLE, 'export type ResponseSteerErrorCode = ', 'response_too_busy'),
  literal('literal of an end', STABLE, "reason\\?: (?='max_output_tokens')", 'max_regret'),
  literal('literal of an inject', BETA, "code: (?='response_already_completed')", 'response_paused'),
  literal('literal of a window', STABLE, "completion_window\\?: (?='soonest')", '24h'),
  literal('literal of a query', 'responses/input-items.d.ts', "order\\?: (?='asc')", 'random'),
  {
    kind: 'terminal',
    file: STABLE,
    from: /(export type ResponsesServerEvent = )/,
    to: "export interface Mutant { type: 'response.paused'; response: Response; }\n$1Mutant | ",
  },
  { kind: 'form of a value', file: STABLE, from: /(prompt_cache_key\?: )string/, to: '$1Array<string>' },
  { kind: 'form of a value', file: STABLE, from: /(\bdelta: )string;/, to: '$1number;' },
  { kind: 'form of a value', file: STABLE, from: /(max_output_tokens\?: number)/, to: '$1 | string' },
];

describe('the drift alarm', () => {
  test.each(MUTATIONS.map((mutation, n) => [n + 1, mutation.kind, mutation] as const))(
    '%i: hears of a new %s',
    (_n, _kind, { file, from, to }) => {
      let changed = 0;
      const edit = (text: string, of: string): string => {
        if (of !== file) return text;
        const bare = text.replaceAll(/\/\*[\s\S]*?\*\//g, '');
        const edited = bare.replace(from, to);
        if (edited !== bare) changed += 1;
        return edited;
      };
      const gaps = findDrift({ edit, only: [file.startsWith('beta/') ? 'beta' : 'openai'] });
      expect(changed, 'the declarations have what is to be changed').toBe(1);
      expect(gaps.length).toBeGreaterThan(0);
    },
  );

  test('is tried with a dozen kinds', () => {
    expect(MUTATIONS.length).toBeGreaterThanOrEqual(30);
    expect(new Set(MUTATIONS.map(({ kind }) => kind)).size).toBeGreaterThanOrEqual(12);
  });
});
