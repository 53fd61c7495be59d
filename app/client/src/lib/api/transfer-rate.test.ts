import { describe, expect, it } from 'vitest';
import type { Progress } from './contract';
import { bytesPerSecond, RateMeter, secondsLeft } from './transfer-rate';

const at = (done_bytes: number, more: Partial<Progress> = {}): Progress => ({
  done_bytes,
  total_bytes: 1000,
  started_at: 1,
  eta_seconds: null,
  bytes_per_second: null,
  ...more,
});

describe('RateMeter', () => {
  it('knows nothing from one reading', () => {
    expect(new RateMeter().read(at(100), 0)).toBeNull();
  });

  it('measures over the last seconds only', () => {
    const meter = new RateMeter();
    for (let second = 0; second <= 20; second++) meter.read(at(second * 10), second);
    let rate: number | null = null;
    for (let second = 21; second <= 40; second++) rate = meter.read(at(200 + (second - 20) * 30), second);
    expect(rate).toBeCloseTo(30, 5);
  });

  it('says 0 when nothing moves', () => {
    const meter = new RateMeter();
    meter.read(at(50), 0);
    expect(meter.read(at(50), 2)).toBe(0);
  });

  it('starts over with a new phase, a restart, and after a pause', () => {
    const meter = new RateMeter();
    meter.read(at(900), 0);
    expect(meter.read(at(5, { started_at: 2 }), 1)).toBeNull();
    expect(meter.read(at(2, { started_at: 2 }), 2)).toBeNull();
    expect(meter.read(null, 3)).toBeNull();
    expect(meter.read(at(2, { started_at: 2 }), 4)).toBeNull();
  });
});

describe('secondsLeft', () => {
  it('prefers what the service says', () => expect(secondsLeft(at(0, { eta_seconds: 7 }), 100)).toBe(7));
  it('falls back on the rate', () => expect(secondsLeft(at(400), 100)).toBe(6));
  it('is unknown without movement', () => {
    expect(secondsLeft(at(400), 0)).toBeNull();
    expect(secondsLeft(at(400), null)).toBeNull();
  });
});

describe('bytesPerSecond', () => {
  it('is what the service measures', () => expect(bytesPerSecond(at(0, { bytes_per_second: 7 }), 100)).toBe(7));
  it('does not hide a stall behind what was seen here', () => expect(bytesPerSecond(at(0, { bytes_per_second: 0 }), 9)).toBe(0));
  it('falls back on what was seen here', () => expect(bytesPerSecond(at(0), 100)).toBe(100));
});
