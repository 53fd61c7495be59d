import { describe, expect, it } from 'vitest';
import type { Status } from './contract';
import { currentStep, phasePercent } from './phase-progress';

const progress = (done_bytes: number): Status['progress'] => ({
  done_bytes,
  total_bytes: 400,
  started_at: 1,
  eta_seconds: null,
  bytes_per_second: null,
});
const steps = (done: number, share: number) => ({ done, total: 12, share, eta_seconds: null });
const status = (fields: Partial<Status>): Status => ({ progress: null, steps: null, load_stage: null, ...fields }) as Status;

describe('phasePercent', () => {
  it('is of the bytes while they are read', () => {
    expect(phasePercent(status({ phase: 'downloading', progress: progress(100) }))).toBe(25);
    expect(phasePercent(status({ phase: 'loading', load_stage: 'reading', progress: progress(100) }))).toBe(25);
  });
  it('is unknown before the first byte and after the last', () => {
    expect(phasePercent(status({ phase: 'loading', load_stage: 'starting_process' }))).toBeNull();
    expect(phasePercent(status({ phase: 'loading', load_stage: 'preparing', progress: progress(400) }))).toBeNull();
  });
  it('is of the work of the steps, not of their number', () => {
    expect(phasePercent(status({ phase: 'proving', steps: steps(9, 0.25) }))).toBe(25);
    expect(phasePercent(status({ phase: 'proving', steps: steps(12, 1.0000001) }))).toBe(100);
  });
});

describe('currentStep', () => {
  it('counts from 1 and stays at the last', () => {
    expect([0, 2, 12].map((done) => currentStep(steps(done, 0)))).toEqual([1, 3, 12]);
  });
});
