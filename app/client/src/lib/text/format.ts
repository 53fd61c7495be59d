// Numbers as text.

const KIB = 1024;
const MIB = KIB * 1024;
const GIB = MIB * 1024;

/** About three significant figures: `5.63 GiB`, `412 MiB`, `87 KiB`. */
export function bytes(count: number): string {
  const size = Math.max(0, count);
  if (size >= GIB) return `${figures(size / GIB)} GiB`;
  if (size >= MIB) return `${figures(size / MIB)} MiB`;
  if (size >= KIB) return `${Math.round(size / KIB)} KiB`;
  return `${Math.round(size)} B`;
}

/** `done` and `total`, both in the unit of the total: `1.20 of 5.63 GiB`. */
export function bytesPair(done: number, total: number): readonly [string, string] {
  const unit = total >= GIB ? GIB : total >= MIB ? MIB : KIB;
  const digits = unit === GIB ? 2 : unit === MIB && total < 10 * MIB ? 1 : 0;
  return [(Math.max(0, done) / unit).toFixed(digits), bytes(total)];
}

function figures(value: number): string {
  // 999.6 MiB becomes "1000", which is correct, only wider.
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}

export interface DurationWords {
  readonly seconds: string;
  readonly minutes: string;
  readonly hours: string;
}

/** `8 s`, `3 min 05 s`, `1 h 12 min`. */
export function duration(seconds: number, words: DurationWords): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} ${words.seconds}`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} ${words.minutes} ${pad(whole % 60)} ${words.seconds}`;
  return `${Math.floor(minutes / 60)} ${words.hours} ${pad(minutes % 60)} ${words.minutes}`;
}

function pad(value: number): string {
  return String(value).padStart(2, '0');
}

/** A model's number of parameters: `9.40 B`, `3.10 M`. */
export function parameters(count: number): string {
  if (count >= 1e9) return `${figures(count / 1e9)} B`;
  if (count >= 1e6) return `${figures(count / 1e6)} M`;
  return count.toLocaleString('en');
}

/** A number of something a second: whole, below ten with two digits. */
export function rate(perSecond: number): string {
  return perSecond >= 9.95 ? perSecond.toFixed(0) : String(Number(perSecond.toPrecision(2)));
}

export function whole(count: number): string {
  return count.toLocaleString('en');
}

/** Text with a capital first letter; names such as int8 stay as they are. */
export function capital(words: string): string {
  return /^[a-z]+\d/.test(words) ? words : words.charAt(0).toUpperCase() + words.slice(1);
}

export function percent(done: number, total: number): number {
  return total > 0 ? Math.min(100, Math.max(0, (done / total) * 100)) : 0;
}
