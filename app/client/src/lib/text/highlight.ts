// Colours for code, by highlight.js, which is fetched when the first code block is complete.

/** Marked-up HTML of code, unsafe; null where the language is not known. */
export async function highlight(code: string, language: string): Promise<string | null> {
  const { default: library } = await import('highlight.js/lib/common');
  if (!library.getLanguage(language)) return null;
  return library.highlight(code, { language, ignoreIllegals: true }).value;
}
