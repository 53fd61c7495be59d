import { percent } from '../text/format';
import type { Status } from './contract';

/** How much of the present phase is done, 0 to 100; null if that is not known, or the bytes are only its first part. */
export function phasePercent(status: Status): number | null {
  const { progress, steps } = status;
  if (steps) return percent(steps.share, 1);
  if (!progress || status.load_stage === 'preparing') return null;
  return percent(progress.done_bytes, progress.total_bytes);
}

/** The step that runs now, from 1. */
export function currentStep(steps: NonNullable<Status['steps']>): number {
  return Math.min(steps.done + 1, steps.total);
}
