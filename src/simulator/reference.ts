import { z } from 'zod';
import { DIRECTIVES } from './directives.ts';
import { FaultSchema } from './faults.ts';
import { ODD_SWITCHES } from './odd.ts';
import { SimulatorOptionsSchema, SwitchesSchema, TimingSchema } from './options.ts';
import { ScriptSchema } from './script.ts';

/** One thing that a user can set: its name, its default (empty: none), what it does. */
export interface ReferenceRow {
  readonly name: string;
  readonly value: string;
  readonly text: string;
}

export interface ReferenceSection {
  readonly title: string;
  readonly rows: readonly ReferenceRow[];
}

/** All that can be set, from the schemas themselves; `simulate --help` and docs/simulator.md show it. */
export function simulatorReference(): readonly ReferenceSection[] {
  const switches = fieldsOf(SwitchesSchema);
  return [
    {
      title: 'directives',
      rows: Object.values(DIRECTIVES).map(([name, text]) => ({ name, value: '', text })),
    },
    { title: 'options', rows: fieldsOf(SimulatorOptionsSchema) },
    { title: 'timing', rows: fieldsOf(TimingSchema) },
    { title: 'switches', rows: switches.filter(({ name }) => !Object.hasOwn(ODD_SWITCHES, name)) },
    { title: 'odd upstreams', rows: switches.filter(({ name }) => Object.hasOwn(ODD_SWITCHES, name)) },
    { title: 'faults', rows: kindsOf(FaultSchema) },
    { title: 'scope of a fault', rows: fieldsOf(FaultSchema).filter(({ name }) => SCOPE.has(name)) },
    { title: 'script items', rows: kindsOf(ScriptSchema.shape.rules.element.shape.items) },
  ];
}

/** Fields that every fault has. */
const SCOPE = new Set(['transport', 'connection', 'request', 'totalRequest', 'lane', 'probability', 'times']);

interface Described {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Described>>;
  readonly anyOf?: readonly Described[];
  readonly oneOf?: readonly Described[];
  readonly items?: Described;
  readonly minimum?: number;
  readonly maximum?: number;
}

function describedBy(schema: z.ZodType): Described {
  return z.toJSONSchema(schema, { io: 'input', reused: 'inline', unrepresentable: 'any' }) as Described;
}

function fieldsOf(schema: z.ZodType): ReferenceRow[] {
  const described = describedBy(schema);
  const { properties = {} } = objectsOf(described)[0] ?? described;
  return Object.entries(properties).map(([name, field]) => ({
    name,
    value:
      field.default === undefined || typeof field.default === 'object' ? '' : JSON.stringify(field.default),
    text: [allowed(field), field.description].filter(Boolean).join(': '),
  }));
}

/** The kinds of a union, each with the fields of its own. */
function kindsOf(schema: z.ZodType): ReferenceRow[] {
  return objectsOf(describedBy(schema)).map((kind) => {
    const { properties = {}, description = '' } = kind;
    const tag = properties['kind'] ?? properties['type'];
    const own = Object.entries(properties).filter(
      ([name, { const: fixed }]) => fixed === undefined && !SCOPE.has(name),
    );
    return { name: String(tag?.const), value: own.map(([name]) => name).join(', '), text: description };
  });
}

function objectsOf({ anyOf, oneOf, items, properties, ...rest }: Described): readonly Described[] {
  if (items !== undefined) return objectsOf(items);
  const choices = anyOf ?? oneOf;
  return choices === undefined
    ? [{ ...rest, ...(properties && { properties }) }]
    : choices.flatMap(objectsOf);
}

/** The values of a closed set. */
function allowed(field: Described): string {
  const items = field.items?.enum ?? field.enum;
  return items === undefined ? '' : items.join(' | ');
}
