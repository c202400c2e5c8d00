import type { Responses } from 'openai/resources/responses/responses';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { findDrift } from '../../scripts/schema-drift.ts';
import { loadApi } from '../../src/translate/api.ts';
import type {
  CompactField,
  CreateField,
  EventType,
  InputItemType,
  OutputItemType,
  ResponseField,
  ToolType,
} from './fixtures/proto-names.ts';

/** What the gateway says in its own way. */
type Enveloped =
  /** Which event it is; a client never writes it. */
  | 'type'
  /** StartTurn.lane_id. */
  | 'stream_id'
  /** Implied. */
  | 'stream';

type Create = Responses.ResponsesClientEvent & { readonly type: 'response.create' };

/** Checked by the compiler: `npm run check -- types` fails where a set is not empty. */
describe('nothing of the openai package is missing in the proto', () => {
  test('event types', () => {
    expectTypeOf<Exclude<Responses.ResponsesServerEvent['type'], EventType>>().toBeNever();
  });
  test('input item types', () => {
    expectTypeOf<Exclude<NonNullable<Responses.ResponseInputItem['type']>, InputItemType>>().toBeNever();
  });
  test('output item types', () => {
    expectTypeOf<Exclude<Responses.ResponseOutputItem['type'], OutputItemType>>().toBeNever();
    expectTypeOf<Exclude<Responses.ResponseItem['type'], OutputItemType>>().toBeNever();
  });
  test('tool types', () => {
    expectTypeOf<Exclude<Responses.Tool['type'], ToolType>>().toBeNever();
  });
  test('fields of a create', () => {
    expectTypeOf<Exclude<keyof Create, CreateField | Enveloped>>().toBeNever();
  });
  test('fields of a compact', () => {
    expectTypeOf<Exclude<keyof Responses.ResponseCompactParams, CompactField>>().toBeNever();
  });
  test('fields of a response', () => {
    expectTypeOf<Exclude<keyof Responses.Response, ResponseField>>().toBeNever();
  });
});

describe('schema:drift', () => {
  test('finds nothing in the installed package and the kept schema', () => {
    expect(findDrift()).toEqual([]);
  });

  test('names what a proto without a field is missing', () => {
    const api = loadApi();
    const plan = api.plan('PromptCacheBreakpoint');
    const older = { ...plan, slots: plan.slots.filter((slot) => slot.key !== 'ttl') };
    const forgetful = { ...api, plan: (name: string) => (name === 'CreateBody' ? older : api.plan(name)) };
    const gaps = findDrift({ api: forgetful });
    expect(gaps).toContainEqual(
      expect.objectContaining({
        source: 'openai',
        message: 'PromptCacheBreakpoint',
        field: 'temperature',
        missing: 'field',
      }),
    );
  });
});
