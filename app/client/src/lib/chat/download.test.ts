import { expect, it } from 'vitest';
import { fileName } from './download';

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
