// The list of conversations: what the side bar shows, and what can be done with one as a whole.

import { type ApiFailure, call, failureOf, json } from '../api/client';
import type { Conversation, ConversationChange, ConversationHead, ConversationPage, Export } from '../api/contract';
import { refreshed, sorted, type Heads } from './conversation-list';
import { Tabs } from './tab-channel';

const SOON_MS = 250;
const LOOK_MS = 15_000;
const FORMAT: Export['format'] = 'berth-conversations';

class Conversations {
  heads = $state.raw<Heads>([]);
  search = $state('');
  /** The list has been loaded once. */
  loaded = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  /** Id of what another tab changed, and a number that moves on each time. */
  heard = $state.raw<{ readonly id: string | null; readonly count: number }>({ id: null, count: 0 });

  private before = $state<string | null>(null);
  private readonly tabs = new Tabs();
  private typing: ReturnType<typeof setTimeout> | undefined;
  private asked = 0;
  private loadingMore = false;

  get more(): boolean {
    return this.before !== null;
  }

  head(id: string | null): ConversationHead | undefined {
    return this.heads.find((head) => head.id === id);
  }

  /** Keeps the list fresh until the returned function is called. */
  start(): () => void {
    const look = (): void => {
      if (document.visibilityState === 'visible') void this.refresh();
    };
    this.tabs.listen((id) => {
      this.heard = { id, count: this.heard.count + 1 };
      void this.refresh();
    });
    const timer = setInterval(look, LOOK_MS);
    document.addEventListener('visibilitychange', look);
    addEventListener('focus', look);
    void this.refresh();
    return () => {
      clearInterval(timer);
      clearTimeout(this.typing);
      document.removeEventListener('visibilitychange', look);
      removeEventListener('focus', look);
    };
  }

  find(words: string): void {
    this.search = words;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => void this.load((_known, page) => page.conversations), SOON_MS);
  }

  refresh(): Promise<void> {
    return this.load((known, page) => refreshed(known, page.conversations, page.before === null));
  }

  async loadMore(): Promise<void> {
    if (this.before === null || this.loadingMore) return;
    this.loadingMore = true;
    const asked = this.asked;
    try {
      const page = await this.page(this.before);
      if (asked !== this.asked) return;
      const known = new Set(this.heads.map(({ id }) => id));
      this.heads = [...this.heads, ...page.conversations.filter(({ id }) => !known.has(id))];
      this.before = page.before;
    } catch (error) {
      this.failure = failureOf(error);
    } finally {
      this.loadingMore = false;
    }
  }

  async change(id: string, change: Partial<ConversationChange>): Promise<void> {
    const all: ConversationChange = { title: null, pinned: null, settings: null, leaf_id: null, ...change };
    const { head } = await json<Conversation>(`api/conversations/${id}`, { method: 'PATCH', body: all });
    this.heads = sorted(this.heads.map((known) => (known.id === id ? head : known)));
    this.tabs.tell(id);
  }

  async remove(id: string): Promise<void> {
    try {
      await call(`api/conversations/${id}`, { method: 'DELETE' });
    } catch (error) {
      // It was gone already: deleted in another tab, or by a request whose reply was lost.
      if (failureOf(error).kind !== 'gone') throw error;
    }
    this.heads = this.heads.filter((head) => head.id !== id);
    this.tabs.tell(id);
  }

  /** Takes in what was exported; answers the conversations that were added. */
  async take(body: object): Promise<Heads> {
    const added = await json<ConversationPage>('api/conversations/import', { method: 'POST', body });
    this.search = '';
    await this.changed(null);
    return added.conversations;
  }

  /** Something happened to a conversation here: the list and the other tabs follow. */
  async changed(id: string | null): Promise<void> {
    this.tabs.tell(id);
    await this.refresh();
  }

  private async load(merge: (known: Heads, page: ConversationPage) => Heads): Promise<void> {
    const asked = ++this.asked;
    try {
      const page = await this.page(null);
      if (asked !== this.asked) return;
      const merged = merge(this.heads, page);
      if (page.before === null || merged.length === page.conversations.length) this.before = page.before;
      this.heads = merged;
      this.failure = null;
      this.loaded = true;
    } catch (error) {
      if (asked === this.asked) this.failure = failureOf(error);
    }
  }

  private page(before: string | null): Promise<ConversationPage> {
    const query = new URLSearchParams();
    if (this.search.trim() !== '') query.set('search', this.search.trim());
    if (before !== null) query.set('before', before);
    const text = query.toString();
    return json<ConversationPage>(text === '' ? 'api/conversations' : `api/conversations?${text}`, { again: false });
  }
}

/** What a file holds, where it is one of ours; the service checks the rest. */
export function readExport(file: string): object | null {
  try {
    const found: unknown = JSON.parse(file);
    const ours = typeof found === 'object' && found !== null && 'format' in found && found.format === FORMAT;
    return ours ? found : null;
  } catch {
    return null;
  }
}

export const conversations = new Conversations();
