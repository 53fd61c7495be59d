// Actions that several components share: open a conversation, show a dialog, move the focus.

import { tick } from 'svelte';
import { failureOf } from '../api/failure';
import { chat } from '../chat/chat.svelte';
import { conversations } from '../chat/conversations.svelte';
import { keepDraft } from '../chat/drafts';
import { route } from '../chat/route.svelte';
import { failureText } from '../text/failure-text';
import { i18n } from '../text/i18n.svelte';
import { layout } from './layout.svelte';
import { notices } from './notices.svelte';

export type DialogName = 'plan' | 'settings' | 'help';

class Ui {
  dialog = $state<DialogName | null>(null);
  /** Id of the question that is being edited. */
  editing = $state<string | null>(null);

  searchField: HTMLInputElement | null = null;
  messageField: HTMLTextAreaElement | null = null;

  show(dialog: DialogName): void {
    this.dialog = dialog;
  }

  open(id: string | null): void {
    layout.closeDrawer();
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

  /** The button that was pressed disappears, so the focus moves to the nearest field. */
  async toggleSideBar(): Promise<void> {
    layout.toggle();
    await tick();
    if (layout.open) this.searchField?.focus();
    else this.messageField?.focus();
  }

  async deleteConversation(id: string): Promise<void> {
    const deleted = await this.attempt(conversations.remove(id).then(() => true));
    if (!deleted) return;
    keepDraft(id, '');
    if (chat.id === id) this.newChat();
    notices.show(i18n.words.list.deleted);
  }

  /** Waits for an action; if it fails, shows why and returns undefined. */
  async attempt<T>(action: Promise<T>): Promise<T | undefined> {
    try {
      return await action;
    } catch (error) {
      const words = i18n.words;
      notices.show(words.sentences(words.list.notDone, failureText(words, failureOf(error))), true);
      return undefined;
    }
  }
}

export const ui = new Ui();
