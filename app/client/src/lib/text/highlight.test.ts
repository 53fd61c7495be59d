import { describe, expect, it } from 'vitest';
import { highlight } from './highlight';

describe('highlight', () => {
  it('marks up a language that it knows, and escapes what it marks', async () => {
    expect(await highlight('if x: return "<b>"', 'python')).toBe(
      '<span class="hljs-keyword">if</span> x: <span class="hljs-keyword">return</span> ' +
        '<span class="hljs-string">&quot;&lt;b&gt;&quot;</span>',
    );
  });

  it('leaves other languages alone', async () => {
    expect(await highlight('x', 'no-such-language')).toBeNull();
    expect(await highlight('x', '"><script>')).toBeNull();
  });
});
