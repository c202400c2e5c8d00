import { fileURLToPath } from 'node:url';
import * as protoLoader from '@grpc/proto-loader';
import protobuf from 'protobufjs';
import { type Plan, Plans } from './schema.ts';

export const PACKAGE = 'responses.gateway.v1';
const SERVICE_FILE = 'responses/gateway/v1/service.proto';
const PROTO_DIR = fileURLToPath(new URL('../../proto/', import.meta.url));

export interface Api {
  readonly root: protobuf.Root;
  /** For grpc-js and reflection. */
  readonly packageDefinition: protoLoader.PackageDefinition;
  readonly plans: Plans;
  /** The newest revision that any field names. */
  readonly schemaRevision: number;
  type(name: string): protobuf.Type;
  plan(name: string, carried?: readonly string[]): Plan;
}

let loaded: Api | undefined;

/** The API's descriptors, read once from the `proto` folder of the package. */
export function loadApi(): Api {
  loaded ??= apiOf(loadRoot(PROTO_DIR));
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
  let packageDefinition: protoLoader.PackageDefinition | undefined;
  return {
    root,
    plans,
    get packageDefinition() {
      packageDefinition ??= protoLoader.fromJSON(root.toJSON(), {
        keepCase: true,
        longs: String,
        enums: String,
        oneofs: true,
      });
      return packageDefinition;
    },
    schemaRevision: newestRevision(root),
    type,
    plan: (name, carried) => plans.of(type(name), carried),
  };
}

function loadRoot(dir: string): protobuf.Root {
  const root = new protobuf.Root();
  // protobufjs brings google/protobuf/*.proto itself and asks for the rest by import path.
  root.resolvePath = (_origin, target) => `${dir}${target}`;
  root.loadSync(SERVICE_FILE, { keepCase: true });
  root.resolveAll();
  return root;
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
