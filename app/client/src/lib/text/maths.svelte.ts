// TeX to MathML by KaTeX, which is loaded with the first formula. KaTeX's HTML needs style attributes, which the
// Content-Security-Policy forbids; its MathML has only a few, which are removed.

import type katex from 'katex';

const MAX_SIZE_EM = 50;
const MAX_EXPANSIONS = 500;

class Maths {
  private library = $state.raw<typeof katex | null>(null);
  private requested = false;

  /**
   * HTML of a formula, not sanitised. null for text that is not TeX, and until KaTeX is loaded; then whatever called this
   * in a derived value is rendered again.
   */
  render(tex: string, display: boolean): string | null {
    if (this.library === null) {
      this.loadLibrary();
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
      maxSize: MAX_SIZE_EM,
      maxExpand: MAX_EXPANSIONS,
    });
    return html.replace(/ style="[^"]*"/g, '');
  }

  private loadLibrary(): void {
    if (this.requested) return;
    this.requested = true;
    import('katex').then(
      (module) => (this.library = module.default),
      () => (this.requested = false),
    );
  }
}

export const maths = new Maths();
