import { expect, it } from 'vitest';
import { parseExport } from './conversations.svelte';

it('tells our exports from other files', () => {
  expect(parseExport('{"format":"berth-conversations","version":1,"conversations":[]}')).not.toBeNull();
  for (const other of ['', '{', '[]', 'null', '1', '{"format":"other"}']) expect(parseExport(other)).toBeNull();
});
