import { expect, it } from 'vitest';
import { formatJson } from './json';

it('prints arguments over lines, and leaves text that is not JSON', () => {
  expect(formatJson('{"a":1}')).toBe('{\n  "a": 1\n}');
  expect(formatJson('{"a":')).toBe('{"a":');
});
