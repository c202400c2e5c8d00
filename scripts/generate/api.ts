/**
 * Writes proto/api.json: what protobufjs knows once it has read our .proto files and those of grpc.health,
 * grpc.reflection and ORCA. Reading them anew takes a quarter of a second of every start.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
// Brings descriptor.proto, which protobufjs has but does not find by itself.
import '@grpc/proto-loader';
import protobuf from 'protobufjs';
import { PARSED_OPTIONS } from '../../src/translate/schema.ts';
import { write } from './write.ts';

const require = createRequire(import.meta.url);
const FOLDERS = [
  fileURLToPath(new URL('../../proto/', import.meta.url)),
  join(packageOf('grpc-health-check'), 'proto'),
  join(packageOf('@grpc/reflection'), 'build/proto'),
  join(packageOf('@grpc/grpc-js'), 'proto/xds'),
  join(packageOf('@grpc/grpc-js'), 'proto/protoc-gen-validate'),
];
const FILES = [
  'responses/gateway/v1/service.proto',
  'health/v1/health.proto',
  'grpc/reflection/v1/reflection.proto',
  'grpc/reflection/v1alpha/reflection.proto',
  'xds/service/orca/v3/orca.proto',
];

write({
  'proto/api.json': `${JSON.stringify(apiJson())}
`,
});

function apiJson(): object {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) =>
    FOLDERS.map((folder) => join(folder, target)).find(existsSync) ?? target;
  root.loadSync(FILES, { keepCase: true });
  root.resolveAll();
  keepOptions(root);
  // Rules of protoc-gen-validate on ORCA's fields: nobody here reads them.
  const rules = root.get('validate');
  if (rules !== null) root.remove(rules);
  return root.toJSON();
}

/** An option that is given several times, or has fields, is only whole in what the parser noted beside it. */
function keepOptions(object: protobuf.ReflectionObject): void {
  const parsed = object.parsedOptions as readonly Readonly<Record<string, unknown>>[] | undefined;
  const own = parsed?.filter((option) => Object.keys(option).some((name) => name.startsWith('(')));
  if (own !== undefined && own.length > 0) object.options = { ...object.options, [PARSED_OPTIONS]: own };
  if (object instanceof protobuf.Type) {
    object.fieldsArray.forEach(keepOptions);
    object.oneofsArray.forEach(keepOptions);
  }
  if (object instanceof protobuf.Namespace) object.nestedArray.forEach(keepOptions);
}

function packageOf(name: string): string {
  return dirname(require.resolve(`${name}/package.json`));
}
