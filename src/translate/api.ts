import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs/light.js';
import { type Plan, Plans } from './schema.ts';

export const PACKAGE = 'responses.gateway.v1';
/** `npm run generate` writes it. */
const API_FILE = new URL('../../proto/api.json', import.meta.url);

export interface Api {
  readonly root: protobuf.Root;
  readonly plans: Plans;
  /** The newest revision that any field names. */
  readonly schemaRevision: number;
  type(name: string): protobuf.Type;
  /** A request as it is read first: its input items are bytes, to be read one by one. */
  envelope(name: string): protobuf.Type;
  plan(name: string, carried?: readonly string[]): Plan;
}

let loaded: Api | undefined;

/** The API's descriptors, with those of grpc.health and grpc.reflection; read once. */
export function loadApi(): Api {
  loaded ??= apiOf(protobuf.Root.fromJSON(JSON.parse(readFileSync(API_FILE, 'utf8'))));
  return loaded;
}

/** The same over other descriptors; for tests with another revision. */
export function apiOf(root: protobuf.Root): Api {
  const plans = new Plans();
  const types = new Map<string, protobuf.Type>();
  // protobufjs takes the path apart each time.
  const type = (name: string) => {
    const found = types.get(name) ?? root.lookupType(`${PACKAGE}.${name}`);
    types.set(name, found);
    return found;
  };
  let defined: protobuf.Namespace | undefined;
  const envelopes = new Map<string, protobuf.Type>();
  return {
    root,
    plans,
    schemaRevision: newestRevision(root),
    type,
    envelope: (name) => {
      let found = envelopes.get(name);
      if (found === undefined) {
        defined ??= defineEnvelopes(root, type);
        found = defined.lookupType(name);
        envelopes.set(name, found);
      }
      return found;
    },
    plan: (name, carried) => plans.of(type(name), carried),
  };
}

/** Requests, and what leads from them to their input. */
const AROUND_INPUT = [
  'ConnectRequest',
  'StartTurn',
  'CreateResponseRequest',
  'CompactResponseRequest',
  'CountInputTokensRequest',
];
const HOLDERS_OF_INPUT = ['CreateBody', 'CompactBody', 'CountBody', 'SteerTurn', 'InjectTurn'];

/** Stand in a namespace within the API's, where names of types lead to each other first. */
function defineEnvelopes(root: protobuf.Root, type: (name: string) => protobuf.Type): protobuf.Namespace {
  const envelopes = root.define(`${PACKAGE}.envelopes`);
  for (const name of [...AROUND_INPUT, ...HOLDERS_OF_INPUT]) {
    const copy = protobuf.Type.fromJSON(name, type(name).toJSON());
    const { input } = copy.fields;
    if (input !== undefined) {
      copy.remove(input);
      copy.add(new protobuf.Field('input', input.id, 'bytes', 'repeated'));
    }
    envelopes.add(copy);
  }
  return envelopes;
}

function newestRevision(root: protobuf.Root): number {
  let newest = 1;
  const visit = (node: protobuf.ReflectionObject): void => {
    const revision: unknown = node.options?.['(since_revision)'];
    if (typeof revision === 'number') newest = Math.max(newest, revision);
    if (node instanceof protobuf.Type) node.fieldsArray.forEach(visit);
    if (node instanceof protobuf.Namespace) node.nestedArray.forEach(visit);
  };
  visit(root);
  return newest;
}
