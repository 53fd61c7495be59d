// How a conversation is answered: which values there are, and what they may be. As app/contract/wire.py says.

import type { ChatSettings } from '../api/contract';

export const DEFAULTS: ChatSettings = {
  system_prompt: '',
  temperature: null,
  top_p: null,
  top_k: null,
  min_p: null,
  repetition_penalty: null,
  presence_penalty: null,
  frequency_penalty: null,
  seed: null,
  max_tokens: null,
  enable_thinking: null,
};

export type NumberName = Exclude<keyof ChatSettings, 'system_prompt' | 'enable_thinking'>;

export interface Field {
  readonly name: NumberName;
  readonly min: number;
  readonly max: number;
  /** The least itself is not allowed. */
  readonly above?: boolean;
  readonly integer?: boolean;
}

/** The number fields in the order of the panel; an answer has at most the context's length. */
export function fieldsOf(maxModelLen: number | null): readonly Field[] {
  return [
    { name: 'temperature', min: 0, max: 2 },
    { name: 'max_tokens', min: 1, max: maxModelLen ?? 1_000_000, integer: true },
    { name: 'top_p', min: 0, max: 1, above: true },
    { name: 'top_k', min: 0, max: 1_000_000, integer: true },
    { name: 'min_p', min: 0, max: 1 },
    { name: 'repetition_penalty', min: 0, max: 10, above: true },
    { name: 'presence_penalty', min: -2, max: 2 },
    { name: 'frequency_penalty', min: -2, max: 2 },
    { name: 'seed', min: 0, max: 2 ** 32 - 1, integer: true },
  ];
}

/** What was typed as a value: null for nothing, undefined for what the field does not take. */
export function parse(field: Field, typed: string): number | null | undefined {
  const text = typed.trim().replace(',', '.');
  if (text === '') return null;
  if (!/^-?(\d+\.?\d*|\.\d+)$/.test(text)) return undefined;
  const value = Number(text);
  if (field.integer && !Number.isInteger(value)) return undefined;
  const low = field.above ? value > field.min : value >= field.min;
  return low && value <= field.max ? value : undefined;
}

/** Whether anything differs from the model's own defaults. */
export function changed(settings: ChatSettings): boolean {
  return (Object.keys(DEFAULTS) as (keyof ChatSettings)[]).some((name) => settings[name] !== DEFAULTS[name]);
}
