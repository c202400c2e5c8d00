import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';

const directory = fileURLToPath(new URL('../../proto/', import.meta.url));
const root = new protobuf.Root();
root.resolvePath = (_, target) =>
  target.startsWith('google/') || target.startsWith(directory) ? target : directory + target;
root.loadSync('responses/gateway/v1/service.proto', { keepCase: true });
const ConnectRequest = root.lookupType('responses.gateway.v1.ConnectRequest');
const CreateResponseRequest = root.lookupType('responses.gateway.v1.CreateResponseRequest');

/** A ConnectRequest that starts a turn with one raw input item. */
export function encodeStartTurn(turnId: string, item: string): Buffer {
  const create = { model: 'gpt-6', input: [{ json: Buffer.from(item) }] };
  return Buffer.from(ConnectRequest.encode({ start_turn: { turn_id: turnId, create } }).finish());
}

/** A ConnectRequest that resumes a session. */
export function encodeOpen(resume: { readonly token: string; readonly last_seq: number }): Buffer {
  return Buffer.from(ConnectRequest.encode({ open: { resume } }).finish());
}

/** A CreateResponseRequest with one raw input item. */
export function encodeCreateResponse(item: string): Buffer {
  const create = { model: 'gpt-6', input: [{ json: Buffer.from(item) }] };
  return Buffer.from(CreateResponseRequest.encode({ create }).finish());
}
