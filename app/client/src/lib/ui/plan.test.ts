import { describe, expect, it } from 'vitest';
import type { Plan, Rung } from '../api/contract';
import { bar, noteOf, orderedRungs, partBytes, placeName, shortBytes } from './plan';

const rung = (more: Partial<Rung>): Rung => ({
  precision: 'bf16',
  device: 'cpu',
  compute_dtype: 'bfloat16',
  terms: [],
  need_bytes: 100,
  free_bytes: 50,
  max_model_len: 8192,
  max_num_seqs: 1,
  verdict: 'too_large',
  reason: { en: '', zh: '' },
  placements: [],
  host_need_bytes: 0,
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
    ['cpu', 'CPU'],
    ['GPU-b', 'GPU 3'],
    ['GPU-a+GPU-b', 'GPU 0+3'],
    ['GPU-a+GPU-b+cpu', 'GPU 0+3+CPU'],
    ['GPU-gone', 'GPU-gone'],
    ['8192', '8192'],
  ])('of %s is %s', (device, name) => expect(placeName(plan, device, gpu)).toBe(name));
});

describe('note', () => {
  it.each([
    ['chosen', 'the highest precision that fits', ''],
    ['fits', 'fits too; the GPU was chosen', 'fits too; the GPU was chosen'],
    ['too_large', 'needs 19.24 GiB, 15.30 GiB are free: 3.94 GiB short', ''],
    ['too_large', 'needs 19.24 GiB, 15.30 GiB are free: 3.94 GiB short; the experts stay 16-bit', 'the experts stay 16-bit'],
    ['too_large', 'needs 2 GiB, 1 GiB are free: 1.00 GiB short. One. Two.', 'One. Two.'],
    ['too_large', '需要 19.24 GiB，可用 15.30 GiB：差 3.94 GiB', ''],
    ['too_large', '需要 19.24 GiB，可用 15.30 GiB：差 3.94 GiB。专家层保持 16 位；另选模型', '专家层保持 16 位；另选模型'],
  ] as const)('of %s, %s', (verdict, reason, note) => expect(noteOf(rung({ verdict }), reason)).toBe(note));
});

it('keeps the whole reason where the numbers beside it lack nothing', () => {
  const enough = rung({ need_bytes: 50 });
  expect(noteOf(enough, 'loading needs 3.00 GiB of RAM; 2.00 GiB are free')).toContain('loading needs');
});

describe('bar', () => {
  it('has one scale for all rungs of a device, and another for another device', () => {
    const large = rung({ terms });
    const small = rung({ precision: 'int4', need_bytes: 25, terms: [{ name: 'weights', bytes: 25 }] });
    const elsewhere = rung({ device: 'GPU-1', need_bytes: 1000 });
    const drawn = bar(small, [large, small, elsewhere]);
    expect(drawn.freePercent).toBe(50);
    expect(drawn.parts).toEqual([{ part: 'weights', percent: 25 }]);
  });
  it('draws nothing for a rung without numbers', () => {
    const empty = rung({ need_bytes: 0, free_bytes: 0 });
    expect(bar(empty, [empty])).toEqual({ parts: [], freePercent: 0 });
  });
});
