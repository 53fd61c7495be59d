// Markdown to safe HTML. Libraries do the work; the rules here say what an answer may contain.

import { tex } from '@mdit/plugin-tex';
import DOMPurify from 'dompurify';
import MarkdownIt from 'markdown-it';
import { maths } from './maths.svelte';

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false });
// Only full addresses become links, not "model.py" or "a@b".
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });

// Models write both $…$ and \\(…\\). Until KaTeX is loaded, a formula is shown as its source.
markdown.use(tex, {
  delimiters: 'all',
  mathFence: true,
  render: (content: string, display: boolean): string => {
    const drawn = maths.render(content, display) ?? `<code>${markdown.utils.escapeHtml(content)}</code>`;
    return display ? `<p class="display">${drawn}</p>` : drawn;
  },
});

// The browser would fetch an image from another host, so it becomes a link to its address.
markdown.renderer.rules['image'] = (tokens, index) => {
  const token = tokens[index];
  const source = String(token?.attrGet('src') ?? '');
  const { escapeHtml } = markdown.utils;
  return `<a href="${escapeHtml(source)}">${escapeHtml(token?.content || source)}</a>`;
};

// Column alignment is a style attribute by default, which the Content-Security-Policy forbids.
for (const rule of ['th_open', 'td_open']) {
  markdown.renderer.rules[rule] = (tokens, index, options, _env, self) => {
    const token = tokens[index];
    const align = /text-align:\s*(left|center|right)/.exec(String(token?.attrGet('style') ?? ''))?.[1];
    if (token && align) token.attrs = [['class', `align-${align}`]];
    return self.renderToken(tokens, index, options);
  };
}

const ALLOWED_TAGS = [
  ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'p', 'br', 'hr', 'ul', 'ol', 'li', 'blockquote', 'pre', 'code'],
  ...['strong', 'em', 's', 'a', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'span'],
  ...['math', 'semantics', 'mrow', 'mi', 'mn', 'mo', 'mtext', 'mspace', 'mstyle', 'mpadded', 'mphantom', 'menclose'],
  ...['mfrac', 'msqrt', 'mroot', 'msub', 'msup', 'msubsup', 'munder', 'mover', 'munderover', 'mtable', 'mtr', 'mtd'],
];
const PLAIN_ATTR = [
  ...['class', 'start', 'display', 'displaystyle', 'scriptlevel', 'mathvariant', 'mathcolor', 'mathbackground'],
  ...['accent', 'accentunder', 'fence', 'separator', 'stretchy', 'largeop', 'lspace', 'rspace', 'minsize', 'maxsize'],
  ...['width', 'height', 'depth', 'voffset', 'linethickness', 'columnalign', 'columnspacing', 'rowspacing', 'notation'],
];

let purifier: ReturnType<typeof DOMPurify> | null = null;

/** Reduces HTML to the tags and attributes that an answer may contain. */
export function purify(html: string): string {
  if (purifier === null) {
    purifier = DOMPurify(window);
    purifier.addHook('afterSanitizeAttributes', (node) => {
      if (node.tagName !== 'A') return;
      node.setAttribute('target', '_blank');
      node.setAttribute('rel', 'noopener noreferrer');
    });
  }
  return purifier.sanitize(html, {
    ALLOWED_TAGS,
    ALLOWED_ATTR: ['href', ...PLAIN_ATTR],
    // These are not addresses, so ALLOWED_URI_REGEXP does not apply to them.
    ADD_URI_SAFE_ATTR: PLAIN_ATTR,
    // The TeX source, which KaTeX adds to each formula.
    ADD_FORBID_CONTENTS: ['annotation'],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
}

/**
 * The text's top-level blocks as HTML, not sanitised. While an answer grows, only its last block changes. The page
 * replaces only that one, so what is being read or selected stays.
 */
export function rawBlocks(text: string): string[] {
  const env = {};
  const tokens = markdown.parse(text, env);
  const blocks: string[] = [];
  let start = 0;
  let depth = 0;
  tokens.forEach((token, index) => {
    depth += token.nesting;
    if (depth > 0) return;
    blocks.push(markdown.renderer.render(tokens.slice(start, index + 1), markdown.options, env));
    start = index + 1;
  });
  return blocks;
}

/** A renderer for one growing text; it sanitises only blocks that have changed. */
export function createRenderer(): (text: string) => readonly string[] {
  let known = new Map<string, string>();
  return (text) => {
    const next = new Map<string, string>();
    const safe = rawBlocks(text).map((raw) => {
      const html = known.get(raw) ?? purify(raw);
      next.set(raw, html);
      return html;
    });
    known = next;
    return safe;
  };
}
