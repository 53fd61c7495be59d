import type { Progress } from './contract';

const WINDOW_SECONDS = 12;

interface Sample {
  readonly at: number;
  readonly done: number;
}

/** Bytes a second over the last few seconds, from the polled progress. */
export class RateMeter {
  private samples: Sample[] = [];
  private startedAt: number | null = null;

  /** Adds a reading at `now` (seconds, any clock) and returns the rate; null while there are too few readings. */
  read(progress: Progress | null, now: number): number | null {
    const first = this.samples[0];
    const fresh = progress === null || progress.started_at !== this.startedAt || (first && progress.done_bytes < first.done);
    if (fresh) {
      this.samples = [];
      this.startedAt = progress?.started_at ?? null;
    }
    if (progress === null) return null;
    this.samples.push({ at: now, done: progress.done_bytes });
    while (this.samples.length > 2 && now - (this.samples[0]?.at ?? now) > WINDOW_SECONDS) this.samples.shift();
    const oldest = this.samples[0];
    const span = oldest ? now - oldest.at : 0;
    if (!oldest || span < 0.5) return null;
    return (progress.done_bytes - oldest.done) / span;
  }
}

/** Bytes a second: as the service measures them, or else as the page does. */
export function bytesPerSecond(progress: Progress, rate: number | null): number | null {
  return progress.bytes_per_second ?? rate;
}

/** Seconds left: the estimate of the service, or else by the rate that the page measures. */
export function secondsLeft(progress: Progress, rate: number | null): number | null {
  if (progress.eta_seconds !== null) return progress.eta_seconds;
  const left = progress.total_bytes - progress.done_bytes;
  return rate !== null && rate > 0 ? Math.max(0, left / rate) : null;
}
