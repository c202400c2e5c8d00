import { readFileSync } from 'node:fs';
import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import protobuf from 'protobufjs/light.js';
import { loadApi } from '../translate/index.ts';
import { serviceDefinition } from './service-definition.ts';

/**
 * grpc.reflection.v1 and v1alpha over the descriptors that buf wrote. @grpc/reflection, of which only the .proto files
 * are used here, works on what protobufjs makes of them: it merges the files of a package and puts our custom options
 * into google.protobuf, which grpcurl refuses; and it takes half a second of every start.
 */
export function addReflection(server: Server): void {
  for (const version of ['v1', 'v1alpha']) {
    const service = serviceDefinition(`grpc.reflection.${version}.ServerReflection`);
    server.addService(service, { ServerReflectionInfo: answerAll });
  }
}

interface Request {
  readonly message_request?: string;
  readonly file_by_filename?: string;
  readonly file_containing_symbol?: string;
  readonly file_containing_extension?: {
    readonly containing_type: string;
    readonly extension_number: number;
  };
  readonly all_extension_numbers_of_type?: string;
}

function answerAll(stream: ServerDuplexStream<Request, object>): void {
  stream.on('data', (request: Request) => {
    // An answer may be 2,000 times as long as its request: a client that does not read would fill the memory.
    if (!stream.write({ original_request: request, ...answer(descriptors(), request) })) stream.pause();
  });
  stream.on('drain', () => stream.resume());
  stream.on('end', () => stream.end());
}

function answer(known: Descriptors, request: Request): object {
  switch (request.message_request) {
    case 'list_services':
      return { list_services_response: { service: known.services.map((name) => ({ name })) } };
    case 'file_by_filename':
      return files(known, request.file_by_filename);
    case 'file_containing_symbol':
      return files(known, known.fileOfSymbol.get(request.file_containing_symbol ?? ''));
    case 'file_containing_extension': {
      const { containing_type: type = '', extension_number: number = 0 } =
        request.file_containing_extension ?? {};
      return files(known, known.extensions.get(type)?.get(number));
    }
    case 'all_extension_numbers_of_type': {
      const type = request.all_extension_numbers_of_type ?? '';
      if (!known.fileOfSymbol.has(type)) return notFound();
      const numbers = [...(known.extensions.get(type)?.keys() ?? [])];
      return { all_extension_numbers_response: { base_type_name: type, extension_number: numbers } };
    }
    default:
      return { error_response: { error_code: status.INVALID_ARGUMENT, error_message: 'an empty request' } };
  }
}

/** The file and all it imports, so that the client need not ask for each. */
function files(known: Descriptors, name: string | undefined): object {
  const wanted = new Set<string>();
  const visit = (each: string | undefined): void => {
    const file = each === undefined ? undefined : known.files.get(each);
    if (each === undefined || file === undefined || wanted.has(each)) return;
    wanted.add(each);
    file.dependencies.forEach(visit);
  };
  visit(name);
  if (wanted.size === 0) return notFound();
  const bytes = [...wanted].map((each) => known.files.get(each)?.bytes);
  return { file_descriptor_response: { file_descriptor_proto: bytes } };
}

function notFound(): object {
  return { error_response: { error_code: status.NOT_FOUND, error_message: 'not found' } };
}

interface Descriptors {
  readonly services: readonly string[];
  readonly files: ReadonlyMap<
    string,
    { readonly bytes: Uint8Array; readonly dependencies: readonly string[] }
  >;
  readonly fileOfSymbol: ReadonlyMap<string, string>;
  /** Extended type → field number → file. */
  readonly extensions: ReadonlyMap<string, ReadonlyMap<number, string>>;
}

let loaded: Descriptors | undefined;

/** Most gateways are never asked, so nothing is read before. */
function descriptors(): Descriptors {
  loaded ??= index(readDescriptors());
  return loaded;
}

/** `npm run generate` writes them. */
function readDescriptors(): Uint8Array[] {
  const reader = protobuf.Reader.create(
    readFileSync(new URL('../../proto/descriptors.binpb', import.meta.url)),
  );
  const parts: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    // FileDescriptorSet has one field: repeated FileDescriptorProto file = 1.
    reader.uint32();
    parts.push(reader.bytes());
  }
  return parts;
}

function index(parts: readonly Uint8Array[]): Descriptors {
  const services: string[] = [];
  const byName = new Map<string, { bytes: Uint8Array; dependencies: readonly string[] }>();
  const fileOfSymbol = new Map<string, string>();
  const extensions = new Map<string, Map<number, string>>();
  const fileType = loadApi().root.lookupType('google.protobuf.FileDescriptorProto');
  for (const bytes of parts) {
    const file = fileType.decode(bytes) as unknown as FileDescriptor;
    byName.set(file.name, { bytes, dependencies: file.dependency });
    const add = (scope: string, name: string): string => {
      const symbol = scope === '' ? name : `${scope}.${name}`;
      fileOfSymbol.set(symbol, file.name);
      return symbol;
    };
    const addExtension = (scope: string, { name, number, extendee }: Extension): void => {
      add(scope, name);
      const type = extendee.replace(/^\./, '');
      extensions.set(type, (extensions.get(type) ?? new Map<number, string>()).set(number, file.name));
    };
    const addMessage = (scope: string, message: Message): void => {
      const symbol = add(scope, message.name);
      for (const { name } of message.field) add(symbol, name);
      for (const { name } of message.enumType) add(symbol, name);
      for (const extension of message.extension) addExtension(symbol, extension);
      for (const nested of message.nestedType) addMessage(symbol, nested);
    };
    for (const message of file.messageType) addMessage(file.package, message);
    for (const { name } of file.enumType) add(file.package, name);
    for (const extension of file.extension) addExtension(file.package, extension);
    for (const service of file.service) {
      const symbol = add(file.package, service.name);
      services.push(symbol);
      for (const { name } of service.method) add(symbol, name);
    }
  }
  return { services, files: byName, fileOfSymbol, extensions };
}

interface Named {
  readonly name: string;
}

interface Extension extends Named {
  readonly number: number;
  readonly extendee: string;
}

interface Message extends Named {
  readonly field: readonly Named[];
  readonly enumType: readonly Named[];
  readonly extension: readonly Extension[];
  readonly nestedType: readonly Message[];
}

interface FileDescriptor extends Named {
  readonly package: string;
  readonly dependency: readonly string[];
  readonly messageType: readonly Message[];
  readonly enumType: readonly Named[];
  readonly extension: readonly Extension[];
  readonly service: readonly (Named & { readonly method: readonly Named[] })[];
}
