// Order and groups of the conversation list.

import type { ConversationHead } from '../api/contract';

export type Heads = readonly ConversationHead[];
export type Age = 'pinned' | 'today' | 'yesterday' | 'week' | 'older';

export interface Group {
  readonly age: Age;
  readonly heads: Heads;
}

const AGES: readonly Age[] = ['pinned', 'today', 'yesterday', 'week', 'older'];
const DAY_MS = 24 * 3600 * 1000;

/** Pinned ones first, then the newest. */
export function sorted(heads: Heads): Heads {
  return [...heads].sort((a, b) => Number(b.pinned) - Number(a.pinned) || b.updated_at - a.updated_at);
}

/**
 * The list after its first page was loaded again. What is missing from the page's range was deleted; what follows the
 * page was loaded by scrolling and stays.
 */
export function merged(known: Heads, firstPage: Heads, complete: boolean): Heads {
  const last = firstPage.at(-1);
  if (complete || !last) return firstPage;
  const fresh = new Set(firstPage.map(({ id }) => id));
  const rest = sorted([...known.filter(({ id }) => !fresh.has(id)), last]);
  return [...firstPage, ...rest.slice(rest.indexOf(last) + 1)];
}

/** The list in groups by age; `now` is in milliseconds. Empty groups are left out. */
export function grouped(heads: Heads, now: number): readonly Group[] {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const ageOf = ({ pinned, updated_at }: ConversationHead): Age => {
    if (pinned) return 'pinned';
    const at = updated_at * 1000;
    if (at >= midnight) return 'today';
    if (at >= midnight - DAY_MS) return 'yesterday';
    return at >= midnight - 7 * DAY_MS ? 'week' : 'older';
  };
  return AGES.map((age) => ({ age, heads: heads.filter((head) => ageOf(head) === age) })).filter(
    (group) => group.heads.length > 0,
  );
}
