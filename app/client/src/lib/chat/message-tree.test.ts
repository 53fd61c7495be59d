import { describe, expect, it } from 'vitest';
import type { StoredMessage } from '../api/contract';
import { localMessage, MessageTree, upsert } from './message-tree';

const message = (id: string, parent_id: string | null, role: StoredMessage['role'] = 'assistant'): StoredMessage =>
  localMessage({ id, parent_id, role, content: id, state: 'done' });
const ids = (messages: readonly StoredMessage[]): string[] => messages.map(({ id }) => id);

// q1 ─ a1 ─ q2 ─ a2
//    └ a1b ─ q3
// q1b
const MESSAGES = [
  message('q1', null, 'user'),
  message('a1', 'q1'),
  message('a1b', 'q1'),
  message('q2', 'a1', 'user'),
  message('a2', 'q2'),
  message('q3', 'a1b', 'user'),
  message('q1b', null, 'user'),
];

describe('a tree', () => {
  const tree = new MessageTree(MESSAGES);

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
    expect(new MessageTree([]).branch(null)).toEqual([]);
  });

  it('shows a message whose parent is missing', () => {
    expect(ids(new MessageTree([message('a', 'nowhere')]).branch(null))).toEqual(['a']);
  });

  it('bears thousands of messages in a row', () => {
    const long = Array.from({ length: 5000 }, (_, n) => message(`m${n}`, n === 0 ? null : `m${n - 1}`));
    expect(new MessageTree(long).branch(null)).toHaveLength(5000);
  });
});

it('puts a message in its own place, or at the end', () => {
  const changed = upsert([message('a', null), message('b', 'a')], { ...message('a', null), content: 'new' }, message('c', 'b'));
  expect(changed.map(({ id, content }) => [id, content])).toEqual([
    ['a', 'new'],
    ['b', 'b'],
    ['c', 'c'],
  ]);
});
