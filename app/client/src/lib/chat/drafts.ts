// Unsent text of each conversation, kept over a reload.

import { keys, load, remove, save } from '../storage';

const PREFIX = 'berth.draft.';
const keyOf = (id: string | null): string => `${PREFIX}${id ?? 'new'}`;

export function draftOf(id: string | null): string {
  return load(() => localStorage, keyOf(id)) ?? '';
}

export function keepDraft(id: string | null, text: string): void {
  if (text === '') remove(() => localStorage, keyOf(id));
  else save(() => localStorage, keyOf(id), text);
}

export function forgetDrafts(): void {
  for (const key of keys(() => localStorage)) if (key.startsWith(PREFIX)) remove(() => localStorage, key);
}
