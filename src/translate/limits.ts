/** Input items of one request. More than a conversation has: what the upstream takes at most would be a novel of them. */
export const DEFAULT_MAX_ITEMS = 10_000;
