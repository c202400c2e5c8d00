import { outlineSteps } from '../ground/json-members.ts';
import { LONG_TEXT } from '../ground/long-texts.ts';
import type { Steps, StoredItem } from './types.ts';

export type { StoredItem };

/**
 * The id under which an input item names something that the upstream keeps; undefined: it names nothing, because it
 * brings its own content. An upstream takes an item without its content, or without a type, for the one that it keeps
 * under the id. An id that is no string is told as an empty one, which nobody owns. The translator has refused names
 * that come twice or are spelled otherwise; text that is no JSON was refused as well. A pause is offered where a long one takes long.
 */
export function* storedItemSteps(json: string): Steps<StoredItem | undefined> {
  // Looking at all letters of a long one takes as long as its outline, and cannot be paused.
  if (json.length < LONG_TEXT && !ID_NAME.test(json)) return undefined;
  const item = yield* outlineSteps(json);
  if (item === undefined || item['id'] === undefined || item['id'] === null) return undefined;
  const type = typeof item['type'] === 'string' ? item['type'] : '';
  // A message without a type has a role.
  const content = CONTENT.get(type === '' && typeof item['role'] === 'string' ? 'message' : type) ?? [];
  if (content.some((name) => isGiven(name, item[name]))) return undefined;
  return { id: typeof item['id'] === 'string' ? item['id'] : '', type };
}

/** A member that a reader may take for `id`, at any depth: most items have none. */
const ID_NAME = /"(?:i|\\u00[46]9)(?:d|\\u00[46]4)"\s*:/i;

/**
 * By type, the members of which one has to be there for the item to stand by itself. What an upstream looks up by the
 * id is not among them: a web search never carries its results, a reasoning's summary is not what was thought. Types that
 * are not listed stand for nothing by themselves.
 */
const CONTENT: ReadonlyMap<string, readonly string[]> = new Map([
  ['message', ['content']],
  ['agent_message', ['content']],
  ['reasoning', ['encrypted_content', 'content']],
  ['compaction', ['encrypted_content']],
  ['function_call', ['name']],
  ['function_call_output', ['output']],
  ['custom_tool_call', ['name']],
  ['custom_tool_call_output', ['output']],
  ['multi_agent_call', ['arguments', 'action']],
  ['multi_agent_call_output', ['output']],
  ['image_generation_call', ['result']],
  ['file_search_call', ['results']],
  ['code_interpreter_call', ['outputs']],
  ['computer_call', ['action', 'actions']],
  ['computer_call_output', ['output']],
  ['local_shell_call', ['action']],
  ['local_shell_call_output', ['output']],
  ['shell_call', ['action']],
  ['shell_call_output', ['output']],
  ['apply_patch_call', ['operation']],
  ['apply_patch_call_output', ['call_id']],
  ['mcp_list_tools', ['tools']],
  ['mcp_approval_request', ['name']],
  ['mcp_approval_response', ['approval_request_id']],
  ['mcp_call', ['output', 'error']],
  ['tool_search_call', ['arguments']],
  ['tool_search_output', ['tools']],
  ['additional_tools', ['tools']],
  ['program', ['code']],
  ['program_output', ['result']],
  ['configuration_update', ['reasoning', 'text']],
  ['compaction_trigger', ['type']],
]);

/** An output may well be an empty text; nothing else that is empty says anything. */
function isGiven(name: string, value: unknown): boolean {
  if (typeof value === 'string') return value !== '' || name === 'output';
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}
