// The settings of a conversation and their bounds, which are those of app/contract.

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
  /** `min` itself is not allowed. */
  readonly minExcluded?: boolean;
  readonly integer?: boolean;
}

/** The number fields in the order of the dialog. The context bounds the length of an answer. */
export function fieldsOf(maxModelLen: number | null): readonly Field[] {
  return [
    { name: 'temperature', min: 0, max: 2 },
    { name: 'max_tokens', min: 1, max: maxModelLen ?? 1_000_000, integer: true },
    { name: 'top_p', min: 0, max: 1, minExcluded: true },
    { name: 'top_k', min: 0, max: 1_000_000, integer: true },
    { name: 'min_p', min: 0, max: 1 },
    { name: 'repetition_penalty', min: 0, max: 10, minExcluded: true },
    { name: 'presence_penalty', min: -2, max: 2 },
    { name: 'frequency_penalty', min: -2, max: 2 },
    { name: 'seed', min: 0, max: 2 ** 32 - 1, integer: true },
  ];
}

/** The typed text as a value: null for an empty field, undefined for a value that the field does not accept. */
export function parseValue(field: Field, typed: string): number | null | undefined {
  const text = typed.trim().replace(',', '.');
  if (text === '') return null;
  if (!/^-?(\d+\.?\d*|\.\d+)$/.test(text)) return undefined;
  const value = Number(text);
  if (field.integer && !Number.isInteger(value)) return undefined;
  const aboveMin = field.minExcluded ? value > field.min : value >= field.min;
  return aboveMin && value <= field.max ? value : undefined;
}

/** Whether any setting differs from the model's defaults. */
export function isCustomised(settings: ChatSettings): boolean {
  return (Object.keys(DEFAULTS) as (keyof ChatSettings)[]).some((name) => settings[name] !== DEFAULTS[name]);
}
