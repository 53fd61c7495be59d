// The list of conversations: what the side bar shows, and actions on a whole conversation.

import { call, json } from '../api/client';
import type { Conversation, ConversationChange, ConversationHead, ConversationPage, Export } from '../api/contract';
import { type ApiFailure, failureOf } from '../api/failure';
import { merged, sorted, type Heads } from './conversation-list';
import { TabChannel } from './tab-channel';

const SEARCH_DELAY_MS = 250;
const REFRESH_MS = 15_000;
const EXPORT_FORMAT: Export['format'] = 'berth-conversations';

/** A change that another tab made. `count` rises with each, so that two changes of one conversation differ. */
interface TabChange {
  /** null: more than one conversation. */
  readonly id: string | null;
  readonly count: number;
}

class Conversations {
  heads = $state.raw<Heads>([]);
  search = $state('');
  /** The list has been loaded once. */
  loaded = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  tabChange = $state.raw<TabChange>({ id: null, count: 0 });

  /** Cursor of the next page; null at the end of the list. */
  private before = $state<string | null>(null);
  private readonly tabs = new TabChannel();
  private searchTimer: ReturnType<typeof setTimeout> | undefined;
  /** Counts requests for the first page: an older answer is dropped. */
  private requestCount = 0;
  private loadingMore = false;

  get more(): boolean {
    return this.before !== null;
  }

  head(id: string | null): ConversationHead | undefined {
    return this.heads.find((head) => head.id === id);
  }

  /** Keeps the list fresh until the returned function is called. */
  start(): () => void {
    const refreshIfVisible = (): void => {
      if (document.visibilityState === 'visible') void this.refresh();
    };
    this.tabs.listen((id) => {
      this.tabChange = { id, count: this.tabChange.count + 1 };
      void this.refresh();
    });
    const timer = setInterval(refreshIfVisible, REFRESH_MS);
    document.addEventListener('visibilitychange', refreshIfVisible);
    addEventListener('focus', refreshIfVisible);
    void this.refresh();
    return () => {
      clearInterval(timer);
      clearTimeout(this.searchTimer);
      document.removeEventListener('visibilitychange', refreshIfVisible);
      removeEventListener('focus', refreshIfVisible);
    };
  }

  setSearch(text: string): void {
    this.search = text;
    clearTimeout(this.searchTimer);
    this.searchTimer = setTimeout(() => void this.load((_heads, page) => page.conversations), SEARCH_DELAY_MS);
  }

  refresh(): Promise<void> {
    return this.load((heads, page) => merged(heads, page.conversations, page.before === null));
  }

  async loadMore(): Promise<void> {
    if (this.before === null || this.loadingMore) return;
    this.loadingMore = true;
    const request = this.requestCount;
    try {
      const page = await this.fetchPage(this.before);
      if (request !== this.requestCount) return;
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
    const body: ConversationChange = { title: null, pinned: null, settings: null, leaf_id: null, ...change };
    const { head } = await json<Conversation>(`api/conversations/${id}`, { method: 'PATCH', body });
    this.heads = sorted(this.heads.map((known) => (known.id === id ? head : known)));
    this.tabs.announce(id);
  }

  async remove(id: string): Promise<void> {
    try {
      await call(`api/conversations/${id}`, { method: 'DELETE' });
    } catch (error) {
      // Another tab, or an earlier request whose reply was lost, has deleted it already.
      if (failureOf(error).kind !== 'not_found') throw error;
    }
    this.heads = this.heads.filter((head) => head.id !== id);
    this.tabs.announce(id);
  }

  /** Imports an export and returns the conversations that were added. */
  async importExport(body: object): Promise<Heads> {
    const page = await json<ConversationPage>('api/conversations/import', { method: 'POST', body });
    this.search = '';
    await this.changed(null);
    return page.conversations;
  }

  /** Refreshes the list and informs the other tabs after a change made here. */
  async changed(id: string | null): Promise<void> {
    this.tabs.announce(id);
    await this.refresh();
  }

  private async load(merge: (heads: Heads, page: ConversationPage) => Heads): Promise<void> {
    const request = ++this.requestCount;
    try {
      const page = await this.fetchPage(null);
      if (request !== this.requestCount) return;
      const heads = merge(this.heads, page);
      if (page.before === null || heads.length === page.conversations.length) this.before = page.before;
      this.heads = heads;
      this.failure = null;
      this.loaded = true;
    } catch (error) {
      if (request === this.requestCount) this.failure = failureOf(error);
    }
  }

  private fetchPage(before: string | null): Promise<ConversationPage> {
    const query = new URLSearchParams();
    if (this.search.trim() !== '') query.set('search', this.search.trim());
    if (before !== null) query.set('before', before);
    const text = query.toString();
    return json<ConversationPage>(text === '' ? 'api/conversations' : `api/conversations?${text}`, { retry: false });
  }
}

/** The content of a file that Berth exported, or null for any other file. The service validates the rest. */
export function parseExport(file: string): object | null {
  try {
    const content: unknown = JSON.parse(file);
    const exported = typeof content === 'object' && content !== null && 'format' in content && content.format === EXPORT_FORMAT;
    return exported ? content : null;
  } catch {
    return null;
  }
}

export const conversations = new Conversations();
