// The open conversation: its tree of messages, the branch that is shown, and the answers that are being written.

import { tick } from 'svelte';
import { SvelteMap } from 'svelte/reactivity';
import { call, json } from '../api/client';
import type { ChatSettings, Conversation, NewConversation, NewTurn, StoredMessage, Turn } from '../api/contract';
import { type ApiFailure, failureOf, isAbort } from '../api/failure';
import { followAnswer } from './answer-stream';
import { conversations } from './conversations.svelte';
import { localMessage, MessageTree, upsert, type Messages } from './message-tree';
import { route } from './route.svelte';
import { DEFAULTS } from './settings';
import { uuid } from './uuid';

/** A turn that the service has not accepted yet. Sending it again with the same ids creates no second one. */
export interface UnsentTurn {
  readonly turn: NewTurn;
  /** null while the request is under way. */
  readonly failure: ApiFailure | null;
}

const EMPTY_TURN = { parent_id: null, question_id: null, content: null, continues: null, seq: null };

class Chat {
  /** null: a new chat that the service does not know yet. */
  id = $state<string | null>(null);
  settings = $state.raw<ChatSettings>(DEFAULTS);
  messages = $state.raw<Messages>([]);
  leafId = $state<string | null>(null);
  loading = $state(false);
  /** Why the conversation could not be opened. */
  failure = $state.raw<ApiFailure | null>(null);
  unsent = $state.raw<UnsentTurn | null>(null);

  readonly tree = $derived(new MessageTree(this.messages));
  readonly branch = $derived<Messages>(this.tree.branch(this.leafId));

  /** Answers as they grow. They are kept apart from `messages`, so that the tree is not rebuilt for every token. */
  private readonly growing = new SvelteMap<string, StoredMessage>();
  private readonly streams = new Map<string, AbortController>();
  private created = false;
  /** Counts loads: the result of an older one is dropped. */
  private loadCount = 0;
  private leafBeforeTurn: string | null = null;
  private stopWhenAccepted = false;
  private lastUpdate = 0;
  private refreshingList = false;

  get last(): StoredMessage | undefined {
    const last = this.branch.at(-1);
    return last && this.current(last);
  }

  /** The shown branch ends in an answer that is being written, or is about to be. */
  get busy(): boolean {
    return this.last?.state === 'writing' && !this.unsent?.failure;
  }

  /** The newest state of a message. */
  current(message: StoredMessage): StoredMessage {
    return this.growing.get(message.id) ?? message;
  }

  /** Opens a conversation; null opens a new chat. */
  async open(id: string | null): Promise<void> {
    if (id === this.id && this.failure === null) return;
    this.reset();
    this.id = id;
    this.created = id !== null;
    if (id !== null) await this.load(id);
  }

  /** Loads the open conversation again: another tab or machine may have changed it. */
  async reload(): Promise<void> {
    if (this.id !== null && this.created && !this.loading && this.unsent === null) await this.load(this.id);
  }

  /** Reloads if the list has a newer time for the open conversation, unless the change was made here. */
  updatedAt(at: number): void {
    if (at <= this.lastUpdate) return;
    this.lastUpdate = at;
    if (!this.refreshingList) void this.reload();
  }

  async send(content: string): Promise<void> {
    if (this.busy) return;
    this.dropUnsent();
    const last = this.last;
    // A question without an answer is replaced by the new one, as another version.
    const parent_id = (last?.role === 'user' ? last.parent_id : last?.id) ?? null;
    await this.submit({ ...EMPTY_TURN, answer_id: uuid(), question_id: uuid(), content, parent_id });
  }

  /** Adds another version of a question, with its own answer. */
  async edit(question: StoredMessage, content: string): Promise<void> {
    const parent_id = question.parent_id;
    await this.submit({ ...EMPTY_TURN, answer_id: uuid(), question_id: uuid(), content, parent_id });
  }

  /** Requests another answer to a question. */
  async answer(question_id: string | null): Promise<void> {
    await this.submit({ ...EMPTY_TURN, answer_id: uuid(), parent_id: question_id });
  }

  /** Continues an answer that broke off. */
  async continueAnswer(answer: StoredMessage): Promise<void> {
    await this.submit({ ...EMPTY_TURN, answer_id: answer.id, continues: answer.id, seq: answer.seq });
  }

  /** Sends the turn that the service has not accepted once more. */
  async resend(): Promise<void> {
    if (this.unsent) await this.submit(this.unsent.turn);
  }

  async stop(): Promise<void> {
    const answer = this.last;
    if (answer?.state !== 'writing') return;
    this.stopWhenAccepted = this.unsent !== null;
    if (this.stopWhenAccepted) return;
    this.finish(await json<StoredMessage>(`api/turns/${answer.id}/stop`, { method: 'POST', retry: true }));
  }

  /** Shows another version of a message, with what answers it. */
  async show(version: StoredMessage): Promise<void> {
    this.leafId = this.tree.newestLeaf(version)?.id ?? null;
    if (this.id !== null && this.created) await conversations.change(this.id, { leaf_id: this.leafId });
  }

  /** Deletes a message and everything below it; then shows another version, or the message before it. */
  async remove(message: StoredMessage): Promise<void> {
    const others = this.tree.versions(message).filter(({ id }) => id !== message.id);
    await call(`api/messages/${message.id}`, { method: 'DELETE' }).catch((error: unknown) => {
      if (failureOf(error).kind !== 'not_found') throw error;
    });
    const removed = this.tree.subtree(message.id);
    for (const id of removed) this.stopFollowing(id);
    this.messages = this.messages.filter(({ id }) => !removed.has(id));
    this.leafId = this.tree.newestLeaf(others.at(-1) ?? this.tree.get(message.parent_id))?.id ?? null;
    await this.refreshList();
  }

  async configure(settings: ChatSettings): Promise<void> {
    if (this.id !== null && this.created) await conversations.change(this.id, { settings });
    this.settings = settings;
  }

  private async submit(turn: NewTurn): Promise<void> {
    this.showUnsent(turn);
    const id = (this.id ??= uuid());
    try {
      await this.create(id);
      const accepted = await json<Turn>(`api/conversations/${id}/turns`, { method: 'POST', body: turn, retry: true });
      if (this.id === id) this.accept(accepted);
      void this.refreshList();
    } catch (error) {
      if (this.id === id && !isAbort(error)) this.unsent = { turn, failure: failureOf(error) };
    }
  }

  // The question is shown at once; the service's own messages replace it later.
  private showUnsent(turn: NewTurn): void {
    this.dropUnsent();
    this.stopWhenAccepted = false;
    this.leafBeforeTurn = this.leafId;
    const { question_id, answer_id, parent_id, content } = turn;
    const known = this.tree.get(answer_id);
    const answer = known
      ? { ...known, state: 'writing' as const, error: null }
      : localMessage({ id: answer_id, parent_id: question_id ?? parent_id, role: 'assistant', content: '', state: 'writing' });
    const question =
      question_id === null ? [] : [localMessage({ id: question_id, parent_id, role: 'user', content: content ?? '', state: 'done' })];
    this.messages = upsert(this.messages, ...question, answer);
    this.leafId = answer_id;
    this.unsent = { turn, failure: null };
  }

  // Removes the messages of a turn that was not accepted.
  private dropUnsent(): void {
    if (!this.unsent) return;
    const { answer_id, question_id, continues } = this.unsent.turn;
    const local = continues === null ? [answer_id, question_id] : [];
    this.messages = this.messages.filter(({ id }) => !local.includes(id));
    this.leafId = this.leafBeforeTurn;
    this.unsent = null;
  }

  private async create(id: string): Promise<void> {
    if (this.created) return;
    const body: NewConversation = { id, settings: this.settings };
    await call('api/conversations', { method: 'POST', body, retry: true });
    if (this.id !== id) return;
    this.created = true;
    route.replace(id);
  }

  private accept({ question, answer }: Turn): void {
    this.unsent = null;
    this.messages = upsert(this.messages, ...(question ? [question] : []), answer);
    this.leafId = answer.id;
    this.follow(answer);
    if (this.stopWhenAccepted) void this.stop();
  }

  private async load(id: string): Promise<void> {
    const load = ++this.loadCount;
    this.loading = this.messages.length === 0;
    try {
      const conversation = await json<Conversation>(`api/conversations/${id}`);
      if (load !== this.loadCount || this.unsent) return;
      this.messages = conversation.messages;
      this.settings = conversation.settings;
      this.lastUpdate = conversation.head.updated_at;
      if (!this.tree.get(this.leafId)) this.leafId = conversation.leaf_id;
      this.failure = null;
      for (const message of conversation.messages) this.follow(message);
    } catch (error) {
      const failure = failureOf(error);
      if (load === this.loadCount && (failure.kind === 'not_found' || this.messages.length === 0)) this.failure = failure;
    } finally {
      if (load === this.loadCount) this.loading = false;
    }
  }

  // Follows an answer that is being written, once.
  private follow(answer: StoredMessage): void {
    if (answer.state !== 'writing' || this.streams.has(answer.id)) return;
    const abort = new AbortController();
    this.streams.set(answer.id, abort);
    followAnswer(answer, (message) => this.update(message), abort.signal).catch((error: unknown) => {
      if (isAbort(error)) return;
      this.stopFollowing(answer.id);
      void this.reload();
    });
  }

  private update(message: StoredMessage): void {
    if (message.state === 'writing') this.growing.set(message.id, message);
    else {
      this.finish(message);
      void this.refreshList();
    }
  }

  private finish(message: StoredMessage): void {
    this.stopFollowing(message.id);
    this.messages = upsert(this.messages, message);
  }

  private stopFollowing(id: string): void {
    this.streams.get(id)?.abort();
    this.streams.delete(id);
    this.growing.delete(id);
  }

  // Refreshes the list after a change made here, without reloading the open conversation because of it.
  private async refreshList(): Promise<void> {
    this.refreshingList = true;
    await conversations.changed(this.id);
    await tick();
    this.refreshingList = false;
  }

  private reset(): void {
    this.loadCount++;
    for (const abort of this.streams.values()) abort.abort();
    this.streams.clear();
    this.growing.clear();
    this.messages = [];
    this.leafId = null;
    this.settings = DEFAULTS;
    this.failure = null;
    this.unsent = null;
    this.loading = false;
  }
}

export const chat = new Chat();
