// The plan as the page shows it: order of the rungs, and the parts of each bar.

import type { Plan, Rung, TermName } from '../api/contract';

const CPU = 'cpu';

export type Part = 'weights' | 'cache' | 'activations' | 'overhead';
export const PARTS: readonly Part[] = ['weights', 'cache', 'activations', 'overhead'];

const PART_OF: Readonly<Record<TermName, Part>> = {
  weights: 'weights',
  kv_cache: 'cache',
  activations: 'activations',
  load_peak: 'overhead',
  runtime: 'overhead',
  margin: 'overhead',
};

/** Bytes of each part; what the terms don't explain counts as overhead, so that the bar is as long as the need. */
export function partBytes(rung: Rung): Readonly<Record<Part, number>> {
  const sums: Record<Part, number> = { weights: 0, cache: 0, activations: 0, overhead: 0 };
  for (const term of rung.terms) sums[PART_OF[term.name]] += term.bytes;
  const explained = PARTS.reduce((sum, part) => sum + sums[part], 0);
  sums.overhead += Math.max(0, rung.need_bytes - explained);
  return sums;
}

export function shortBytes(rung: Rung): number {
  const parts = rung.placements.length > 0 ? rung.placements : [rung];
  return parts.reduce((sum, part) => sum + Math.max(0, part.need_bytes - part.free_bytes), 0);
}

/** The chosen rung first, the others in the ladder's own order. */
export function ordered(plan: Plan): readonly Rung[] {
  const isChosen = (rung: Rung): boolean => rung.verdict === 'chosen';
  return [...plan.rungs.filter(isChosen), ...plan.rungs.filter((rung) => !isChosen(rung))];
}

/** `GPU 0`, `CPU`, or several as `GPU 0+1+CPU`; `device` is as a rung has it. What is no device stays as it is. */
export function placeName(plan: Plan, device: string, gpu: (indices: string) => string): string {
  const parts = device.split('+');
  const indices = parts.filter((part) => part !== CPU).map((uuid) => plan.devices.find((one) => one.uuid === uuid)?.index);
  if (indices.includes(undefined)) return device;
  return [...(indices.length > 0 ? [gpu(indices.join('+'))] : []), ...(parts.includes(CPU) ? ['CPU'] : [])].join('+');
}

/**
 * What the numbers of a rung don't tell. The chosen rung's reason heads the card; that of one which is too large begins
 * with the numbers that stand beside it, and what follows them is a clause of its own.
 */
export function noteOf(rung: Rung, reason: string): string {
  if (rung.verdict === 'chosen') return '';
  if (rung.verdict !== 'too_large' || shortBytes(rung) === 0) return reason;
  return reason.split(/(?<=[;；。]|\. )/).slice(1).join('').trim();
}

/** Where free memory ends in the bar, and how long each part is, in percent of the bar. */
export interface Bar {
  readonly parts: readonly { readonly part: Part; readonly percent: number }[];
  readonly freePercent: number;
}

/** Every bar of one device has the same scale, so that they can be compared. */
export function bar(rung: Rung, rungs: readonly Rung[]): Bar {
  const peers = rungs.filter((other) => other.device === rung.device);
  const scale = Math.max(1, ...peers.map((other) => Math.max(other.need_bytes, other.free_bytes)));
  const sums = partBytes(rung);
  const parts = PARTS.filter((part) => sums[part] > 0).map((part) => ({ part, percent: (sums[part] / scale) * 100 }));
  return { parts, freePercent: (rung.free_bytes / scale) * 100 };
}
