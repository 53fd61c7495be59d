import { expect, it } from 'vitest';
import { DEFAULTS, fieldsOf, isCustomised, parseValue, type Field } from './settings';

const field = (name: string): Field => fieldsOf(8192).find((each) => each.name === name) as Field;

it.each([
  ['temperature', '', null],
  ['temperature', ' 0.7 ', 0.7],
  ['temperature', '0,7', 0.7],
  ['temperature', '0', 0],
  ['temperature', '2.1', undefined],
  ['temperature', '-1', undefined],
  ['temperature', 'warm', undefined],
  ['temperature', '1e0', undefined],
  ['temperature', 'NaN', undefined],
  ['top_p', '0', undefined],
  ['top_p', '1', 1],
  ['top_p', '.5', 0.5],
  ['presence_penalty', '-2', -2],
  ['top_k', '3.5', undefined],
  ['top_k', '3', 3],
  ['max_tokens', '0', undefined],
  ['max_tokens', '8192', 8192],
  ['max_tokens', '8193', undefined],
] as const)('%s: %j is %j', (name, typed, value) => {
  expect(parseValue(field(name), typed)).toBe(value);
});

it('knows whether anything is set', () => {
  expect(isCustomised(DEFAULTS)).toBe(false);
  expect(isCustomised({ ...DEFAULTS, temperature: 0 })).toBe(true);
  expect(isCustomised({ ...DEFAULTS, enable_thinking: false })).toBe(true);
});
