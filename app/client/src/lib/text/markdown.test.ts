// What comes before the sanitiser, which needs a real browser: tests/browser looks at the whole.
import { describe, expect, it, vi } from 'vitest';
import { rawBlocks } from './markdown';

const html = (text: string): string => rawBlocks(text).join('');

describe('rawBlocks', () => {
  it('cuts at the top level only', () => {
    const text = '# A\n\nb\n\n- c\n\n  d\n- e\n\n```py\nx = 1\n```\n\n---\n\n| a |\n|--|\n| 1 |';
    expect(rawBlocks(text).map((block) => /^<(\w+)/.exec(block)?.[1])).toEqual(['h1', 'p', 'ul', 'pre', 'hr', 'table']);
  });

  it('leaves finished blocks as they are while the text grows', () => {
    const text = 'one\n\ntwo\n\n```\nthree\n```\n\nfour';
    const final = rawBlocks(text);
    for (let end = 1; end < text.length; end++) {
      const blocks = rawBlocks(text.slice(0, end));
      expect(blocks.slice(0, -1)).toEqual(final.slice(0, blocks.length - 1));
    }
  });

  it('escapes HTML', () => {
    expect(html('<img src=x onerror=alert(1)>')).not.toContain('<img');
    expect(html('<script>alert(1)</script>')).not.toContain('<script');
  });

  it('makes no image and no style attribute', () => {
    expect(html('![cat](https://elsewhere.example/cat.png)')).toContain('<a href="https://elsewhere.example/cat.png">cat</a>');
    const table = html('| a | b |\n|:-:|--:|\n| 1 | 2 |');
    expect(table).not.toContain('style=');
    expect(table).toContain('class="align-center"');
    expect(table).toContain('class="align-right"');
  });

  it('links written-out addresses, not names of files', () => {
    expect(html('see https://example.org')).toContain('href="https://example.org"');
    expect(html('run model.py or a@b.de')).not.toContain('<a');
    expect(html('[x](javascript:alert(1))')).not.toContain('<a');
  });

  it('shows a formula as it was written until KaTeX is there, then as MathML without styles', async () => {
    const text = 'so $a^2$ and \\(b<c\\)\n\n\\[\n\\frac{1}{2}\n\\]\n\n$$x$$\n\n```math\ny\n```';
    expect(html(text)).toContain('<code>b&lt;c</code>');
    await vi.waitFor(() => expect(html(text)).toContain('<math'));
    expect(html(text).match(/<math/g)).toHaveLength(5);
    expect(html(text).match(/class="display"/g)).toHaveLength(3);
    expect(html(text)).not.toMatch(/style=|<code>/);
  });

  it('takes prices and lone signs for no formula', () => {
    expect(html('from $5 to $10')).toBe('<p>from $5 to $10</p>\n');
  });

  it('shows what is no TeX as it was written', async () => {
    await vi.waitFor(() => expect(html('$x$')).toContain('<math'));
    expect(html('$\\frac{1$ and $\\def\\a{\\a\\a}\\a$')).toBe(
      '<p><code>\\frac{1</code> and <code>\\def\\a{\\a\\a}\\a</code></p>\n',
    );
    expect(html('$\\boxed{x} \\colorbox{red}{y}$')).not.toMatch(/ style=/);
  });

  it('obeys no command of TeX that would link, load or style', async () => {
    const text = '$\\href{javascript:alert(1)}{x} \\htmlStyle{color:red}{y} \\includegraphics{https://a.example/b.png}$';
    await vi.waitFor(() => expect(html(text)).toContain('<math'));
    expect(html(text)).not.toMatch(/href=|style=|src=/);
  });

  it('resolves a reference that is defined further down', () => {
    expect(html('[x][r]\n\n[r]: https://example.org')).toContain('href="https://example.org"');
  });
});
