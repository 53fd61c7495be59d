import { expect, it } from 'vitest';
import { actionOf, keyLabels } from './shortcuts';

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
  expect(keyLabels('newChat', false)).toEqual(['Ctrl', 'Shift', 'O']);
  expect(keyLabels('search', true)).toEqual(['⌘', 'K']);
});
