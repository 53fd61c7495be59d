// TeX to MathML by KaTeX, which is fetched when the first formula comes. MathML needs no style
// attributes, which the Content-Security-Policy forbids.

import type katex from 'katex';

const LARGEST_EM = 50;
const MOST_EXPANSIONS = 500;

class Maths {
  private library = $state.raw<typeof katex | null>(null);
  private asked = false;

  /** HTML of a formula, unsafe; null until KaTeX is there, which then draws anew whoever asked. */
  render(tex: string, display: boolean): string | null {
    if (this.library === null) {
      this.fetch();
      return null;
    }
    return this.library.renderToString(tex, {
      displayMode: display,
      output: 'mathml',
      throwOnError: false,
      strict: 'ignore',
      trust: false,
      maxSize: LARGEST_EM,
      maxExpand: MOST_EXPANSIONS,
    });
  }

  private fetch(): void {
    if (this.asked) return;
    this.asked = true;
    import('katex').then(
      (module) => (this.library = module.default),
      () => (this.asked = false),
    );
  }
}

export const maths = new Maths();
