import { formatMoney, type Picos, parseMoney, ZERO } from '../ground/money.ts';
import type { AttributedUse } from '../telemetry/types.ts';
import { short } from './entries.ts';

/** What a turn spent on one item, or on one field of the request. */
export interface AttributedPart extends AttributedUse {
  /** The tool whose call the item is. */
  readonly tool?: string | undefined;
}

/** What a session spent on one tool: its calls as the model wrote them, and read them again in later turns. */
export interface ToolUse {
  calls: number;
  inputTokens: number;
  cachedInputTokens: number;
  outputTokens: number;
  cost: Picos | undefined;
}

/** The parts of a turn that are kept: those with the most tokens. */
const MAX_PARTS = 16;
const MAX_TOOLS = 32;
/** Calls whose tool is remembered, for when later turns read them again. */
const MAX_CALLS = 128;
const OTHER_TOOL = '_OTHER';

/** Which tools a session called, and what its upstream says that they cost. Made with the first call. */
export class ToolUses {
  readonly tools = new Map<string, ToolUse>();
  readonly #toolOfItem = new Map<string, string>();

  called(tool: string, itemId: string | undefined): void {
    this.#of(tool).calls += 1;
    if (itemId === undefined) return;
    this.#toolOfItem.set(itemId, tool);
    if (this.#toolOfItem.size <= MAX_CALLS) return;
    for (const oldest of this.#toolOfItem.keys()) {
      this.#toolOfItem.delete(oldest);
      break;
    }
  }

  toolOf(itemId: string): string | undefined {
    return this.#toolOfItem.get(itemId);
  }

  spent(tool: string, part: AttributedUse): void {
    const use = this.#of(tool);
    use.inputTokens += part.inputTokens;
    use.cachedInputTokens += part.cachedInputTokens;
    use.outputTokens += part.outputTokens;
    if (part.cost !== undefined) use.cost = (use.cost ?? ZERO) + (parseMoney(part.cost) ?? ZERO);
  }

  #of(tool: string): ToolUse {
    const name = this.tools.has(tool) || this.tools.size < MAX_TOOLS ? tool : OTHER_TOOL;
    const known = this.tools.get(name);
    if (known !== undefined) return known;
    const use: ToolUse = { calls: 0, inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, cost: undefined };
    this.tools.set(name, use);
    return use;
  }
}

/** Counts what belongs to tools, and gives back what is kept of the turn, in no order. */
export function attribute(
  parts: readonly AttributedUse[],
  tools: ToolUses | undefined,
): readonly AttributedPart[] {
  // Most turns: there is nothing to count, and nothing to leave out.
  if (tools === undefined && parts.length <= MAX_PARTS && parts.every(isShort)) return parts;
  const named = parts.map((part) => {
    const tool = part.of === 'item' ? tools?.toolOf(part.name) : undefined;
    if (tool !== undefined) tools?.spent(tool, part);
    return { ...part, name: short(part.name), tool };
  });
  return byTokens(named).slice(0, MAX_PARTS);
}

function isShort({ name }: AttributedUse): boolean {
  return short(name) === name;
}

/** Those with the most tokens first. */
export function byTokens(parts: readonly AttributedPart[]): AttributedPart[] {
  return parts.toSorted((one, other) => weight(other) - weight(one));
}

function weight({ inputTokens, outputTokens }: AttributedUse): number {
  return inputTokens + outputTokens;
}

/** For a view. */
export function toolRows({ tools }: ToolUses) {
  return Array.from(tools, ([tool, { cost, ...use }]) => ({
    tool,
    ...use,
    ...(cost !== undefined && { cost: formatMoney(cost) }),
  }));
}
