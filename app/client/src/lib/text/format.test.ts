import { describe, expect, it } from 'vitest';
import { en } from '../../locale/en';
import { zh } from '../../locale/zh';
import { bytes, bytesPair, capital, duration, parameters, percent } from './format';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

describe('bytes', () => {
  it.each([
    [0, '0 B'],
    [-5, '0 B'],
    [1023, '1023 B'],
    [1536, '2 KiB'],
    [3.25 * MIB, '3.25 MiB'],
    [412 * MIB, '412 MiB'],
    [GIB, '1.00 GiB'],
    [17.64 * GIB, '17.6 GiB'],
    [139.8 * GIB, '140 GiB'],
  ])('%d is %s', (count, words) => expect(bytes(count)).toBe(words));
});

describe('bytesPair', () => {
  it.each([
    [0, 5.63 * GIB, '0.00', '5.63 GiB'],
    [1.2 * GIB, 5.63 * GIB, '1.20', '5.63 GiB'],
    [900 * MIB, GIB, '0.88', '1.00 GiB'],
    [3 * MIB, 6.1 * MIB, '3.0', '6.10 MiB'],
    [30 * MIB, 61 * MIB, '30', '61.0 MiB'],
  ])('%d of %d', (done, total, first, second) => expect(bytesPair(done, total)).toEqual([first, second]));
});

describe('duration', () => {
  it.each([
    [-1, '0 s', '0 秒'],
    [8.4, '8 s', '8 秒'],
    [59.6, '1 min 00 s', '1 分 00 秒'],
    [185, '3 min 05 s', '3 分 05 秒'],
    [4320, '1 h 12 min', '1 小时 12 分'],
  ])('%d seconds', (seconds, english, chinese) => {
    expect(duration(seconds, en.units)).toBe(english);
    expect(duration(seconds, zh.units)).toBe(chinese);
  });
});

it('counts parameters', () => {
  expect(parameters(9_399_951_360)).toBe('9.40 B');
  expect(parameters(3_100_000)).toBe('3.10 M');
  expect(parameters(12_345)).toBe('12,345');
});

it('keeps percent between 0 and 100, whatever is reported', () => {
  expect(percent(5, 0)).toBe(0);
  expect(percent(-5, 10)).toBe(0);
  expect(percent(11, 10)).toBe(100);
  expect(percent(1, 4)).toBe(25);
});

it.each([
  ['the highest precision', 'The highest precision'],
  ['int8 would save little', 'int8 would save little'],
  ['也放得下', '也放得下'],
  ['', ''],
])('%s begins a sentence as %s', (words, sentence) => expect(capital(words)).toBe(sentence));
