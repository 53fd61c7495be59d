// What was typed and not sent, kept for each conversation over a reload.

import { load, save } from '../storage';

const key = (id: string | null): string => `berth.draft.${id ?? 'new'}`;

export function draftOf(id: string | null): string {
  return load(() => localStorage, key(id)) ?? '';
}

export function keepDraft(id: string | null, text: string): void {
  if (text !== '') return save(() => localStorage, key(id), text);
  try {
    localStorage.removeItem(key(id));
  } catch {
    // Nothing is kept where storage is forbidden.
  }
}
