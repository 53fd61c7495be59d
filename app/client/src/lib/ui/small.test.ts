import { expect, it } from 'vitest';
import { readExport } from '../chat/conversations.svelte';
import { fileName } from '../chat/download';
import { uuid } from '../chat/uuid';
import { pretty } from '../text/json';
import { actionOf, written } from './shortcuts';

it('makes UUIDs in lower case', () => {
  const made = Array.from({ length: 100 }, uuid);
  expect(made.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id))).toBe(true);
  expect(new Set(made).size).toBe(100);
});

it.each([
  ['A/B: what?', 'A B what'],
  ['内存够吗？', '内存够吗？'],
  ['../../etc', 'etc'],
  ['a\u0000\nb', 'a b'],
  ['   ', 'berth'],
  ['', 'berth'],
])('makes a file name of %j', (title, name) => {
  expect(fileName(title)).toBe(name);
});

const pressed = (key: string, held: string) => ({
  key,
  ctrlKey: held.includes('c'),
  metaKey: held.includes('m'),
  shiftKey: held.includes('s'),
  altKey: held.includes('a'),
});

it.each([
  ['O', 'cs', 'newChat'],
  ['o', 'ms', 'newChat'],
  ['o', 'c', null],
  ['k', 'c', 'search'],
  ['K', 'cs', null],
  ['k', 'ca', null],
  ['b', '', null],
  ['Escape', '', null],
  ['Escape', 's', 'input'],
  ['/', 'c', 'help'],
])('%s with %j is %s', (key, held, action) => {
  expect(actionOf(pressed(key, held))).toBe(action);
});

it('writes keys as the keyboard has them', () => {
  expect(written('newChat', false)).toEqual(['Ctrl', 'Shift', 'O']);
  expect(written('search', true)).toEqual(['⌘', 'K']);
});

it('prints arguments over lines, and leaves what is no JSON', () => {
  expect(pretty('{"a":1}')).toBe('{\n  "a": 1\n}');
  expect(pretty('{"a":')).toBe('{"a":');
});

it('tells our exports from other files', () => {
  expect(readExport('{"format":"berth-conversations","version":1,"conversations":[]}')).not.toBeNull();
  for (const other of ['', '{', '[]', 'null', '1', '{"format":"other"}']) expect(readExport(other)).toBeNull();
});
