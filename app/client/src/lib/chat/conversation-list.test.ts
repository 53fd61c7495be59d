import { describe, expect, it } from 'vitest';
import type { ConversationHead } from '../api/contract';
import { grouped, merged, sorted } from './conversation-list';

const head = (id: string, updated_at: number, pinned = false): ConversationHead => ({
  id,
  title: id,
  pinned,
  created_at: 0,
  updated_at,
});
const ids = (heads: readonly ConversationHead[]): string => heads.map(({ id }) => id).join('');

it('sorts pinned ones first, then the newest', () => {
  expect(ids(sorted([head('a', 1), head('b', 3), head('c', 0, true), head('d', 2, true)]))).toBe('dcba');
});

describe('a list that is asked for again', () => {
  const known = [head('a', 9), head('b', 8), head('c', 7), head('d', 6)];

  it('is the answer, where that is all', () => {
    expect(ids(merged(known, [head('b', 10)], true))).toBe('b');
    expect(ids(merged(known, [], false))).toBe('');
  });

  it('keeps what lies behind the first part, and drops what is gone from it', () => {
    expect(ids(merged(known, [head('n', 10), head('b', 8)], false))).toBe('nbcd');
  });
});

it('groups by age', () => {
  const now = new Date(2026, 10, 23, 15).getTime();
  const hours = (ago: number): number => now / 1000 - ago * 3600;
  const heads = [head('p', 0, true), head('a', hours(1)), head('b', hours(20)), head('c', hours(70)), head('d', hours(900))];
  expect(grouped(heads, now).map((group) => [group.age, ids(group.heads)])).toEqual([
    ['pinned', 'p'],
    ['today', 'a'],
    ['yesterday', 'b'],
    ['week', 'c'],
    ['older', 'd'],
  ]);
});
