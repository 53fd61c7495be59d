import { expect, it } from 'vitest';
import { uuid } from './uuid';

it('makes UUIDs in lower case', () => {
  const made = Array.from({ length: 100 }, uuid);
  expect(made.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id))).toBe(true);
  expect(new Set(made).size).toBe(100);
});
