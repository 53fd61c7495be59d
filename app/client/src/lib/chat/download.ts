// Saves exports as files.

import { call } from '../api/client';
import type { ConversationHead } from '../api/contract';

export type Format = 'markdown' | 'json';

export async function downloadExport(head: ConversationHead, format: Format, language: string): Promise<void> {
  const path = `api/conversations/${head.id}/export?format=${format}&lang=${language}`;
  const name = `${fileName(head.title)}.${format === 'json' ? 'json' : 'md'}`;
  save(name, await (await call(path)).blob());
}

export async function downloadAll(): Promise<void> {
  save('berth.json', await (await call('api/conversations/export')).blob());
}

/** A title as a file name, without characters that any file system refuses. */
export function fileName(title: string): string {
  const plain = title.replace(/[\p{C}\s/\\:*?"<>|]+/gu, ' ').trim().replace(/^[.\s]+/, '').slice(0, 80).trim();
  return plain || 'berth';
}

function save(name: string, content: Blob): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  // Chromium reads the address only after the click has returned.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
