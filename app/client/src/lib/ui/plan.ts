// The plan as the page shows it: the order of the rungs and the parts of each bar.

import type { Plan, Rung, SpeedEstimate, TermName, Text } from '../api/contract';
import { rate } from '../text/format';

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

/** Bytes of each part. Bytes that no term names count as overhead, so that the bar is as long as the need. */
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

/** The chosen rung first, then the others in the planner's order. */
export function orderedRungs(plan: Plan): readonly Rung[] {
  const isChosen = (rung: Rung): boolean => rung.verdict === 'chosen';
  return [...plan.rungs.filter(isChosen), ...plan.rungs.filter((rung) => !isChosen(rung))];
}

/** `GPU 0`, `CPU`, or several as `GPU 0+1+CPU`, from the devices of a rung. */
export function placeName(plan: Plan, devices: readonly string[], gpu: (indices: string) => string): string {
  const indices = devices
    .filter((name) => name !== CPU)
    .map((uuid) => plan.devices.find((one) => one.uuid === uuid)?.index);
  if (indices.includes(undefined)) return devices.join('+');
  return [...(indices.length > 0 ? [gpu(indices.join('+'))] : []), ...(devices.includes(CPU) ? ['CPU'] : [])].join('+');
}

/**
 * What the row of a rung does not show elsewhere. The card shows the chosen rung's reason as its heading, and the row
 * shows what a rung is short of in numbers.
 */
export function notesOf(rung: Rung): readonly Text[] {
  const elsewhere = rung.verdict === 'chosen' || rung.reason.code === 'short_of_memory';
  return [...(elsewhere ? [] : [rung.reason]), ...(rung.verdict === 'chosen' ? [] : rung.notes)];
}

/** Tokens a second to expect of one request: `8.1–12`, or one number if both are the same. */
export function speedRange({ low_tokens_per_second: low, high_tokens_per_second: high }: SpeedEstimate): string {
  return [...new Set([rate(low), rate(high)])].join('–');
}

/** Lengths in percent of the bar: of each part, and of the free memory. */
export interface Bar {
  readonly parts: readonly { readonly part: Part; readonly percent: number }[];
  readonly freePercent: number;
}

/** All bars of one device have the same scale, so that they can be compared. */
export function bar(rung: Rung, rungs: readonly Rung[]): Bar {
  const peers = rungs.filter((other) => other.device === rung.device);
  const scale = Math.max(1, ...peers.map((other) => Math.max(other.need_bytes, other.free_bytes)));
  const sums = partBytes(rung);
  const parts = PARTS.filter((part) => sums[part] > 0).map((part) => ({ part, percent: (sums[part] / scale) * 100 }));
  return { parts, freePercent: (rung.free_bytes / scale) * 100 };
}
