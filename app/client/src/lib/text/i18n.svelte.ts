// The page's language: the user's choice, or else the browser's, or else English.

import { en, type Words } from '../../locale/en';
import { zh } from '../../locale/zh';
import type { Status, Text } from '../api/contract';
import { load, save } from '../storage';
import { capital } from './format';

export type Language = 'en' | 'zh';

const KEY = 'berth.language';
const WORDS: Readonly<Record<Language, Words>> = { en, zh };

export function pickLanguage(chosen: string | null, browser: readonly string[]): Language {
  if (chosen === 'en' || chosen === 'zh') return chosen;
  for (const tag of browser) {
    const primary = tag.toLowerCase().split('-')[0];
    if (primary === 'en' || primary === 'zh') return primary;
  }
  return 'en';
}

class I18n {
  language = $state<Language>('en');

  /** All texts of the page. */
  get words(): Words {
    return WORDS[this.language];
  }

  /** The `lang` attribute's value. */
  get tag(): string {
    return this.language === 'zh' ? 'zh-CN' : 'en';
  }

  start(): void {
    this.language = pickLanguage(
      load(() => localStorage, KEY),
      navigator.languages,
    );
  }

  toggle(): void {
    this.language = this.language === 'en' ? 'zh' : 'en';
    save(() => localStorage, KEY, this.language);
  }

  /** What the service does now. */
  phaseText(status: Status): string {
    return status.load_stage ? this.words.loadStage[status.load_stage] : this.words.phase[status.phase].text;
  }

  /** A text of the service in the page's language; a no-break space keeps each number with its unit. */
  localise(text: Text): string {
    const words = text[this.language] || text.en;
    return words.replace(/(\d) ([GM]iB)/g, '$1\u00a0$2');
  }

  /** Several reasons in one line. */
  clauses(reasons: readonly Text[]): string {
    return reasons.map((reason) => this.localise(reason)).join(this.language === 'zh' ? '；' : '; ');
  }

  /** A reason as a sentence of its own; the service writes it as a clause. */
  sentence(reason: Text): string {
    return capital(this.localise(reason));
  }
}

export const i18n = new I18n();
