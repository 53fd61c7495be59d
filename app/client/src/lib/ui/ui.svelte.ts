// What several components can ask the page for: open this, show that dialog, put the focus there.

import { tick } from 'svelte';
import { failureOf } from '../api/client';
import { chat } from '../chat/chat.svelte';
import { conversations } from '../chat/conversations.svelte';
import { keepDraft } from '../chat/drafts';
import { route } from '../chat/route.svelte';
import { i18n } from '../text/i18n.svelte';
import { layout } from './layout.svelte';
import { notices } from './notices.svelte';

export type DialogName = 'plan' | 'settings' | 'help';

class Ui {
  dialog = $state<DialogName | null>(null);
  /** Of the question that is being edited. */
  editing = $state<string | null>(null);

  searchField: HTMLInputElement | null = null;
  messageField: HTMLTextAreaElement | null = null;

  show(dialog: DialogName): void {
    this.dialog = dialog;
  }

  open(id: string | null): void {
    layout.picked();
    this.editing = null;
    route.go(id);
    void chat.open(id);
    // On a touch screen the keyboard would cover the page.
    if (matchMedia('(hover: hover)').matches) this.focusMessage();
  }

  newChat(): void {
    this.open(null);
  }

  focusMessage(): void {
    void tick().then(() => this.messageField?.focus());
  }

  async focusSearch(): Promise<void> {
    layout.set(true);
    await tick();
    this.searchField?.focus();
    this.searchField?.select();
  }

  /** The button that was pressed is gone afterwards: the focus goes on to what can be used next. */
  async toggleSideBar(): Promise<void> {
    layout.toggle();
    await tick();
    if (layout.open) this.searchField?.focus();
    else this.messageField?.focus();
  }

  async deleteConversation(id: string): Promise<void> {
    const done = await this.attempt(conversations.remove(id).then(() => true));
    if (!done) return;
    keepDraft(id, '');
    if (chat.id === id) this.newChat();
    notices.say(i18n.words.list.deleted);
  }

  /** Says what went wrong, if something did. */
  async attempt<T>(step: Promise<T>): Promise<T | undefined> {
    try {
      return await step;
    } catch (error) {
      const { kind, detail } = failureOf(error);
      const words = i18n.words;
      const why = detail === '' ? words.failure[kind] : words.failure.detail(detail);
      notices.say(`${words.list.notDone} ${why}`, true);
      return undefined;
    }
  }
}

export const ui = new Ui();
