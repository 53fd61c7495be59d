// Syntax highlighting by highlight.js, which is loaded with the first complete code block.

/** HTML of highlighted code, not sanitised; null if the language is unknown. */
export async function highlight(code: string, language: string): Promise<string | null> {
  const { default: library } = await import('highlight.js/lib/common');
  if (!library.getLanguage(language)) return null;
  return library.highlight(code, { language, ignoreIllegals: true }).value;
}
