import { describe, expect, it } from 'vitest';
import { en } from '../../locale/en';
import { zh } from '../../locale/zh';
import { pickLanguage } from './i18n.svelte';

type Leaf = string | ((...args: never[]) => string);

function leaves(words: object, path = ''): Map<string, Leaf> {
  const found = new Map<string, Leaf>();
  for (const [key, value] of Object.entries(words) as [string, Leaf | object][]) {
    const at = path === '' ? key : `${path}.${key}`;
    if (typeof value === 'object') leaves(value, at).forEach((leaf, name) => found.set(name, leaf));
    else found.set(at, value);
  }
  return found;
}

// Only arguments and punctuation.
const WORDLESS = new Set(['footer.version', 'plan.chosenTitle', 'progress.amount', 'sentences']);
const shown = (leaf: Leaf): string => (typeof leaf === 'string' ? leaf : leaf(...(['1', '2', '3'] as never[])));

describe('the words', () => {
  const english = leaves(en);
  const chinese = leaves(zh);

  it('are the same in number and name', () => {
    expect([...chinese.keys()].sort()).toEqual([...english.keys()].sort());
  });

  it.each([...english.keys()].filter((key) => !WORDLESS.has(key)))('%s is said in both languages', (key) => {
    const [a, b] = [english.get(key), chinese.get(key)] as [Leaf, Leaf];
    expect(shown(a).trim()).not.toBe('');
    // The language switch speaks the other language.
    if (key.startsWith('language.')) return;
    expect(shown(a)).not.toMatch(/[\u4e00-\u9fff]/);
    expect(shown(b)).toMatch(/[\u4e00-\u9fff]/);
    if (typeof a === 'function') expect(typeof b).toBe('function');
  });

  it('use every argument in both languages', () => {
    for (const [key, leaf] of english) {
      const other = chinese.get(key);
      if (typeof leaf !== 'function' || typeof other !== 'function') continue;
      for (let n = 1; n <= leaf.length; n++) expect(shown(other), key).toContain(String(n));
    }
  });
});

describe('pickLanguage', () => {
  it.each([
    [null, ['zh-CN', 'en'], 'zh'],
    [null, ['zh-Hant-TW'], 'zh'],
    [null, ['de-DE', 'zh', 'en'], 'zh'],
    [null, ['de-DE', 'en-GB'], 'en'],
    [null, ['fr'], 'en'],
    [null, [], 'en'],
    ['zh', ['en'], 'zh'],
    ['xx', ['zh'], 'zh'],
  ] as const)('choice %s, browser %j: %s', (chosen, browser, expected) => {
    expect(pickLanguage(chosen, browser)).toBe(expected);
  });
});
