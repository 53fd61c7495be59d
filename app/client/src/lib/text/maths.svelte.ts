// TeX to MathML by KaTeX, which is fetched when the first formula comes. Unlike KaTeX's HTML, MathML needs no style
// attributes, which the Content-Security-Policy forbids; the few that KaTeX adds are taken off.

import type katex from 'katex';

const LARGEST_EM = 50;
const MOST_EXPANSIONS = 500;

class Maths {
  private library = $state.raw<typeof katex | null>(null);
  private asked = false;

  /** HTML of a formula, unsafe; null where it is no TeX, and until KaTeX is there, which then draws anew whoever asked. */
  render(tex: string, display: boolean): string | null {
    if (this.library === null) {
      this.fetch();
      return null;
    }
    try {
      return this.draw(this.library, tex, display);
    } catch {
      return null;
    }
  }

  private draw(library: typeof katex, tex: string, display: boolean): string {
    const html = library.renderToString(tex, {
      displayMode: display,
      output: 'mathml',
      strict: 'ignore',
      trust: false,
      maxSize: LARGEST_EM,
      maxExpand: MOST_EXPANSIONS,
    });
    return html.replace(/ style="[^"]*"/g, '');
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
