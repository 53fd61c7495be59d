// Markdown to safe HTML. The libraries do the work; the rules here say what an answer may hold.

import { tex } from '@mdit/plugin-tex';
import DOMPurify from 'dompurify';
import MarkdownIt from 'markdown-it';
import { maths } from './maths.svelte';

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false });
// "model.py" and "a@b" are no links; only written-out addresses are.
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });

// Models write both $…$ and \\(…\\). Until KaTeX is there a formula is shown as it was written.
markdown.use(tex, {
  delimiters: 'all',
  mathFence: true,
  render: (content: string, display: boolean): string => {
    const drawn = maths.render(content, display) ?? `<code>${markdown.utils.escapeHtml(content)}</code>`;
    return display ? `<p class="display">${drawn}</p>` : drawn;
  },
});

// An image would be fetched from another host: its address is offered as a link instead.
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

/** What is left of unsafe HTML: the tags and attributes that an answer may hold. */
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
    // What is no address need not look like one.
    ADD_URI_SAFE_ATTR: PLAIN_ATTR,
    // The formula's source, which KaTeX writes beside the formula.
    ADD_FORBID_CONTENTS: ['annotation'],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
}

/**
 * The answer's top-level blocks as unsafe HTML. While an answer grows only its last block changes, so the page
 * replaces that one and leaves what is being read or selected alone.
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

/** Renders a growing text; a block that has not changed is not sanitised again. */
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
