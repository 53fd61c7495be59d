// The list of conversations as it is sorted and shown.

import type { ConversationHead } from '../api/contract';

export type Heads = readonly ConversationHead[];
export type Age = 'pinned' | 'today' | 'yesterday' | 'week' | 'older';

export interface Group {
  readonly age: Age;
  readonly heads: Heads;
}

const AGES: readonly Age[] = ['pinned', 'today', 'yesterday', 'week', 'older'];
const DAY_MS = 24 * 3600 * 1000;

/** Pinned first, then the newest. */
export function sorted(heads: Heads): Heads {
  return [...heads].sort((a, b) => Number(b.pinned) - Number(a.pinned) || b.updated_at - a.updated_at);
}

/**
 * The list after its first part was asked for again: what the part leaves out of its own range is gone; what lies
 * behind it was loaded by scrolling and stays.
 */
export function refreshed(known: Heads, first: Heads, complete: boolean): Heads {
  const last = first.at(-1);
  if (complete || !last) return first;
  const fresh = new Set(first.map(({ id }) => id));
  const behind = sorted([...known.filter(({ id }) => !fresh.has(id)), last]);
  return [...first, ...behind.slice(behind.indexOf(last) + 1)];
}

/** The list in groups by age, as of `now` in milliseconds. */
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
