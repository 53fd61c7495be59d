import { describe, expect, it } from 'vitest';
import type { StoredMessage } from '../api/contract';
import { put, sketch, Tree } from './message-tree';

const said = (id: string, parent_id: string | null, role: StoredMessage['role'] = 'assistant'): StoredMessage =>
  sketch({ id, parent_id, role, content: id, state: 'done' });
const ids = (messages: readonly StoredMessage[]): string[] => messages.map(({ id }) => id);

// q1 ─ a1 ─ q2 ─ a2
//    └ a1b ─ q3
// q1b
const MESSAGES = [
  said('q1', null, 'user'),
  said('a1', 'q1'),
  said('a1b', 'q1'),
  said('q2', 'a1', 'user'),
  said('a2', 'q2'),
  said('q3', 'a1b', 'user'),
  said('q1b', null, 'user'),
];

describe('a tree', () => {
  const tree = new Tree(MESSAGES);

  it.each([
    ['a2', ['q1', 'a1', 'q2', 'a2']],
    ['a1', ['q1', 'a1', 'q2', 'a2']],
    ['a1b', ['q1', 'a1b', 'q3']],
    ['q1', ['q1', 'a1b', 'q3']],
    ['gone', ['q1b']],
    [null, ['q1b']],
  ])('shows through %s down to the newest end', (leaf, expected) => {
    expect(ids(tree.branch(leaf))).toEqual(expected);
  });

  it('knows versions, and what answers a message', () => {
    expect(ids(tree.versions(MESSAGES[1] as StoredMessage))).toEqual(['a1', 'a1b']);
    expect(ids(tree.versions(MESSAGES[6] as StoredMessage))).toEqual(['q1', 'q1b']);
    expect([...tree.subtree('a1')]).toEqual(['a1', 'q2', 'a2']);
    expect([...tree.subtree('q1')].sort()).toEqual(['a1', 'a1b', 'a2', 'q1', 'q2', 'q3']);
  });

  it('is empty without messages', () => {
    expect(new Tree([]).branch(null)).toEqual([]);
  });

  it('shows a message whose parent is missing', () => {
    expect(ids(new Tree([said('a', 'nowhere')]).branch(null))).toEqual(['a']);
  });

  it('bears thousands of messages in a row', () => {
    const long = Array.from({ length: 5000 }, (_, n) => said(`m${n}`, n === 0 ? null : `m${n - 1}`));
    expect(new Tree(long).branch(null)).toHaveLength(5000);
  });
});

it('puts a message in its own place, or at the end', () => {
  const changed = put([said('a', null), said('b', 'a')], { ...said('a', null), content: 'new' }, said('c', 'b'));
  expect(changed.map(({ id, content }) => [id, content])).toEqual([
    ['a', 'new'],
    ['b', 'b'],
    ['c', 'c'],
  ]);
});
