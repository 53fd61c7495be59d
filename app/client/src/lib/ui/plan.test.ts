import { describe, expect, it } from 'vitest';
import type { Plan, Rung, Text } from '../api/contract';
import { bar, notesOf, orderedRungs, partBytes, placeName, shortBytes, speedRange } from './plan';

const text = (code: string): Text => ({ en: code, zh: code, code, values: {} });

const rung = (more: Partial<Rung>): Rung => ({
  precision: 'bf16',
  devices: ['cpu'],
  device: 'cpu',
  compute_dtype: 'bfloat16',
  terms: [],
  need_bytes: 100,
  free_bytes: 50,
  max_model_len: 8192,
  max_num_seqs: 1,
  verdict: 'too_large',
  reason: text(''),
  notes: [],
  placements: [],
  host_need_bytes: 0,
  slot_bytes: 0,
  speed: null,
  reached_tokens_per_second: null,
  ...more,
});

const terms = [
  { name: 'weights', bytes: 60 },
  { name: 'kv_cache', bytes: 10 },
  { name: 'activations', bytes: 5 },
  { name: 'load_peak', bytes: 5 },
  { name: 'runtime', bytes: 5 },
  { name: 'margin', bytes: 5 },
] as const;

it('puts the chosen rung first and keeps the ladder otherwise', () => {
  const rungs = [rung({}), rung({ precision: 'int8', verdict: 'chosen' }), rung({ precision: 'int4', verdict: 'fits' })];
  expect(orderedRungs({ rungs } as unknown as Plan).map(({ precision }) => precision)).toEqual(['int8', 'bf16', 'int4']);
});

it.each([
  [8.14, 12.4, '8.1–12'],
  [0.512, 0.949, '0.51–0.95'],
  [30.2, 30.4, '30'],
])('tells a speed from %d to %d as %s', (low, high, told) =>
  expect(
    speedRange({ low_tokens_per_second: low, high_tokens_per_second: high, read_bytes: 1, memory_bytes_per_second: 1 }),
  ).toBe(told),
);

describe('parts', () => {
  it('add up to the need', () => {
    const sums = partBytes(rung({ terms }));
    expect(sums).toEqual({ weights: 60, cache: 10, activations: 5, overhead: 25 });
  });
  it('lack', () => {
    expect(shortBytes(rung({}))).toBe(50);
    expect(shortBytes(rung({ free_bytes: 500 }))).toBe(0);
  });
});

describe('place', () => {
  const plan = { devices: [{ uuid: 'GPU-a', index: 0 }, { uuid: 'GPU-b', index: 3 }] } as unknown as Plan;
  const gpu = (indices: string): string => `GPU ${indices}`;
  it.each([
    [['cpu'], 'CPU'],
    [['GPU-b'], 'GPU 3'],
    [['GPU-a', 'GPU-b'], 'GPU 0+3'],
    [['GPU-a', 'GPU-b', 'cpu'], 'GPU 0+3+CPU'],
    [['GPU-gone'], 'GPU-gone'],
    [['GPU-gone', 'cpu'], 'GPU-gone+cpu'],
  ])('of %s is %s', (devices, name) => expect(placeName(plan, devices, gpu)).toBe(name));
});

describe('notes', () => {
  it.each([
    ['chosen', 'highest_that_fits', [], []],
    ['chosen', 'highest_that_fits', ['experts_stay'], []],
    ['fits', 'fits_too', [], ['fits_too']],
    ['fits', 'fits_too', ['experts_stay'], ['fits_too', 'experts_stay']],
    ['too_large', 'short_of_memory', [], []],
    ['too_large', 'short_of_memory', ['experts_stay'], ['experts_stay']],
    ['too_large', 'short_of_ram', [], ['short_of_ram']],
    ['excluded', 'precision_excluded', ['experts_stay'], ['precision_excluded', 'experts_stay']],
  ] as const)('of %s, %s, %s', (verdict, reason, notes, shown) => {
    const codes = notesOf(rung({ verdict, reason: text(reason), notes: notes.map(text) })).map(({ code }) => code);
    expect(codes).toEqual(shown);
  });
});

describe('bar', () => {
  it('has one scale for all rungs of a device, and another for another device', () => {
    const large = rung({ terms });
    const small = rung({ precision: 'int4', need_bytes: 25, terms: [{ name: 'weights', bytes: 25 }] });
    const elsewhere = rung({ devices: ['GPU-1'], device: 'GPU-1', need_bytes: 1000 });
    const drawn = bar(small, [large, small, elsewhere]);
    expect(drawn.freePercent).toBe(50);
    expect(drawn.parts).toEqual([{ part: 'weights', percent: 25 }]);
  });
  it('draws nothing for a rung without numbers', () => {
    const empty = rung({ need_bytes: 0, free_bytes: 0 });
    expect(bar(empty, [empty])).toEqual({ parts: [], freePercent: 0 });
  });
});
