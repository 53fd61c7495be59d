// The open conversation: its tree of messages, the branch that is shown, and the answers that are being written.

import { tick } from 'svelte';
import { SvelteMap } from 'svelte/reactivity';
import { aborted, ApiFailure, call, failureOf, json } from '../api/client';
import type { ChatSettings, Conversation, NewConversation, NewTurn, StoredMessage, Turn } from '../api/contract';
import { follow } from './answer-stream';
import { conversations } from './conversations.svelte';
import { put, sketch, Tree, type Messages } from './message-tree';
import { route } from './route.svelte';
import { DEFAULTS } from './settings';
import { uuid } from './uuid';

/** A turn that the service has not taken in, and why; asking again with the same ids makes no second one. */
export interface Unsent {
  readonly turn: NewTurn;
  readonly failure: ApiFailure | null;
}

const NO_TURN = { parent_id: null, question_id: null, content: null, continues: null, seq: null };

class Chat {
  /** null: a new chat, of which the service knows nothing yet. */
  id = $state<string | null>(null);
  settings = $state.raw<ChatSettings>(DEFAULTS);
  messages = $state.raw<Messages>([]);
  leafId = $state<string | null>(null);
  loading = $state(false);
  /** Why the conversation could not be opened. */
  failure = $state.raw<ApiFailure | null>(null);
  unsent = $state.raw<Unsent | null>(null);

  readonly tree = $derived(new Tree(this.messages));
  readonly shown = $derived<Messages>(this.tree.branch(this.leafId));

  /** Answers as they grow. Apart from `messages`, so that the tree is built anew only where it changes. */
  private readonly growing = new SvelteMap<string, StoredMessage>();
  private readonly follows = new Map<string, AbortController>();
  private created = false;
  private opening = 0;
  private leafBefore: string | null = null;
  private stopSoon = false;
  private knownAt = 0;
  private ours = false;

  get last(): StoredMessage | undefined {
    const last = this.shown.at(-1);
    return last && this.current(last);
  }

  /** The shown branch ends in an answer that is being written, or is about to be. */
  get busy(): boolean {
    return this.last?.state === 'writing' && !this.unsent?.failure;
  }

  /** A message as it stands now. */
  current(message: StoredMessage): StoredMessage {
    return this.growing.get(message.id) ?? message;
  }

  /** Opens a conversation, or a new chat. */
  async open(id: string | null): Promise<void> {
    if (id === this.id && this.failure === null) return;
    this.leave();
    this.id = id;
    this.created = id !== null;
    if (id !== null) await this.load(id);
  }

  /** Looks what became of the open conversation elsewhere: in another tab, or on another machine. */
  async reload(): Promise<void> {
    if (this.id !== null && this.created && !this.loading && this.unsent === null) await this.load(this.id);
  }

  /** The list says when the open conversation was changed: by somebody else, unless it was just done here. */
  changedAt(at: number): void {
    if (at <= this.knownAt) return;
    this.knownAt = at;
    if (!this.ours) void this.reload();
  }

  async send(content: string): Promise<void> {
    if (this.busy) return;
    this.forget();
    const last = this.last;
    // A question that lost its answer is asked in other words.
    const parent_id = (last?.role === 'user' ? last.parent_id : last?.id) ?? null;
    await this.ask({ ...NO_TURN, answer_id: uuid(), question_id: uuid(), content, parent_id });
  }

  /** Another version of a question, with its own answer. */
  async edit(question: StoredMessage, content: string): Promise<void> {
    const parent_id = question.parent_id;
    await this.ask({ ...NO_TURN, answer_id: uuid(), question_id: uuid(), content, parent_id });
  }

  /** Another answer to a question. */
  async answer(question_id: string | null): Promise<void> {
    await this.ask({ ...NO_TURN, answer_id: uuid(), parent_id: question_id });
  }

  /** Goes on with an answer that broke off. */
  async goOn(answer: StoredMessage): Promise<void> {
    await this.ask({ ...NO_TURN, answer_id: answer.id, continues: answer.id, seq: answer.seq });
  }

  /** Asks again for the turn that the service has not taken in. */
  async resend(): Promise<void> {
    if (this.unsent) await this.ask(this.unsent.turn);
  }

  async stop(): Promise<void> {
    const answer = this.last;
    if (answer?.state !== 'writing') return;
    this.stopSoon = this.unsent !== null;
    if (this.stopSoon) return;
    this.settle(await json<StoredMessage>(`api/turns/${answer.id}/stop`, { method: 'POST', again: true }));
  }

  /** Shows another version of a message, with what answers it. */
  async show(version: StoredMessage): Promise<void> {
    this.leafId = this.tree.end(version)?.id ?? null;
    if (this.id !== null && this.created) await conversations.change(this.id, { leaf_id: this.leafId });
  }

  /** Deletes a message and everything that answers it; shows the next version, or what was before. */
  async remove(message: StoredMessage): Promise<void> {
    const others = this.tree.versions(message).filter(({ id }) => id !== message.id);
    await call(`api/messages/${message.id}`, { method: 'DELETE' }).catch((error: unknown) => {
      if (failureOf(error).kind !== 'gone') throw error;
    });
    const gone = this.tree.subtree(message.id);
    for (const id of gone) this.release(id);
    this.messages = this.messages.filter(({ id }) => !gone.has(id));
    this.leafId = this.tree.end(others.at(-1) ?? this.tree.get(message.parent_id))?.id ?? null;
    await this.told();
  }

  async configure(settings: ChatSettings): Promise<void> {
    if (this.id !== null && this.created) await conversations.change(this.id, { settings });
    this.settings = settings;
  }

  private async ask(turn: NewTurn): Promise<void> {
    this.sketch(turn);
    const id = (this.id ??= uuid());
    try {
      await this.create(id);
      const taken = await json<Turn>(`api/conversations/${id}/turns`, { method: 'POST', body: turn, again: true });
      if (this.id === id) this.take(taken);
      void this.told();
    } catch (error) {
      if (this.id === id && !aborted(error)) this.unsent = { turn, failure: failureOf(error) };
    }
  }

  // What was asked is seen at once; the service's own messages take its place.
  private sketch(turn: NewTurn): void {
    this.forget();
    this.stopSoon = false;
    this.leafBefore = this.leafId;
    const { question_id, answer_id, parent_id, content } = turn;
    const known = this.tree.get(answer_id);
    const answer = known
      ? { ...known, state: 'writing' as const, error: null }
      : sketch({ id: answer_id, parent_id: question_id ?? parent_id, role: 'assistant', content: '', state: 'writing' });
    const question =
      question_id === null ? [] : [sketch({ id: question_id, parent_id, role: 'user', content: content ?? '', state: 'done' })];
    this.messages = put(this.messages, ...question, answer);
    this.leafId = answer_id;
    this.unsent = { turn, failure: null };
  }

  // A turn that was not taken in makes room for the next.
  private forget(): void {
    if (!this.unsent) return;
    const { answer_id, question_id, continues } = this.unsent.turn;
    const local = continues === null ? [answer_id, question_id] : [];
    this.messages = this.messages.filter(({ id }) => !local.includes(id));
    this.leafId = this.leafBefore;
    this.unsent = null;
  }

  private async create(id: string): Promise<void> {
    if (this.created) return;
    const body: NewConversation = { id, settings: this.settings };
    await call('api/conversations', { method: 'POST', body, again: true });
    if (this.id !== id) return;
    this.created = true;
    route.become(id);
  }

  private take({ question, answer }: Turn): void {
    this.unsent = null;
    this.messages = put(this.messages, ...(question ? [question] : []), answer);
    this.leafId = answer.id;
    this.watch(answer);
    if (this.stopSoon) void this.stop();
  }

  private async load(id: string): Promise<void> {
    const opening = ++this.opening;
    this.loading = this.messages.length === 0;
    try {
      const found = await json<Conversation>(`api/conversations/${id}`);
      if (opening !== this.opening || this.unsent) return;
      this.messages = found.messages;
      this.settings = found.settings;
      this.knownAt = found.head.updated_at;
      if (!this.tree.get(this.leafId)) this.leafId = found.leaf_id;
      this.failure = null;
      for (const message of found.messages) this.watch(message);
    } catch (error) {
      const failure = failureOf(error);
      if (opening === this.opening && (failure.kind === 'gone' || this.messages.length === 0)) this.failure = failure;
    } finally {
      if (opening === this.opening) this.loading = false;
    }
  }

  // Follows an answer that is being written, unless that is done already.
  private watch(answer: StoredMessage): void {
    if (answer.state !== 'writing' || this.follows.has(answer.id)) return;
    const abort = new AbortController();
    this.follows.set(answer.id, abort);
    follow(answer, (message) => this.grow(message), abort.signal).catch((error: unknown) => {
      if (aborted(error)) return;
      this.release(answer.id);
      void this.reload();
    });
  }

  private grow(message: StoredMessage): void {
    if (message.state === 'writing') this.growing.set(message.id, message);
    else {
      this.settle(message);
      void this.told();
    }
  }

  private settle(message: StoredMessage): void {
    this.release(message.id);
    this.messages = put(this.messages, message);
  }

  private release(id: string): void {
    this.follows.get(id)?.abort();
    this.follows.delete(id);
    this.growing.delete(id);
  }

  private async told(): Promise<void> {
    this.ours = true;
    await conversations.changed(this.id);
    await tick();
    this.ours = false;
  }

  private leave(): void {
    this.opening++;
    for (const abort of this.follows.values()) abort.abort();
    this.follows.clear();
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
