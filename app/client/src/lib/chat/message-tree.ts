// A conversation's messages as a tree: the versions of a message are children of the same parent.

import type { StoredMessage } from '../api/contract';

export type Messages = readonly StoredMessage[];

/** Look-ups in one state of the messages. */
export class MessageTree {
  private readonly byId = new Map<string, StoredMessage>();
  private readonly children = new Map<string | null, StoredMessage[]>();

  constructor(messages: Messages) {
    for (const message of messages) this.byId.set(message.id, message);
    for (const message of messages) {
      const parent = this.parentOf(message);
      const siblings = this.children.get(parent);
      if (siblings) siblings.push(message);
      else this.children.set(parent, [message]);
    }
  }

  get(id: string | null): StoredMessage | undefined {
    return id === null ? undefined : this.byId.get(id);
  }

  /** From the first message to the newest leaf below `leafId`. If that id is unknown, below the newest first message. */
  branch(leafId: string | null): StoredMessage[] {
    const messages: StoredMessage[] = [];
    let message = this.newestLeaf(this.get(leafId) ?? this.children.get(null)?.at(-1));
    while (message) {
      messages.push(message);
      message = this.get(message.parent_id);
    }
    return messages.reverse();
  }

  /** The message and its other versions, oldest first. */
  versions(message: StoredMessage): Messages {
    const siblings = this.children.get(this.parentOf(message)) ?? [];
    return siblings.filter(({ role }) => role === message.role);
  }

  /** The end of the newest branch through a message. */
  newestLeaf(message: StoredMessage | undefined): StoredMessage | undefined {
    let leaf = message;
    for (let next = leaf; next; next = this.children.get(next.id)?.at(-1)) leaf = next;
    return leaf;
  }

  /** The ids of the message and of everything below it. */
  subtree(id: string): ReadonlySet<string> {
    const ids = new Set<string>([id]);
    // The set grows during the loop, which therefore reaches the end of every branch.
    for (const parent of ids) for (const child of this.children.get(parent) ?? []) ids.add(child.id);
    return ids;
  }

  // A message whose parent is missing counts as a first one, so that it stays visible.
  private parentOf(message: StoredMessage): string | null {
    return message.parent_id !== null && this.byId.has(message.parent_id) ? message.parent_id : null;
  }
}

/** Replaces messages that have the same id and appends the others. */
export function upsert(messages: Messages, ...added: Messages): Messages {
  const fresh = new Map(added.map((message) => [message.id, message]));
  const replaced = messages.map((message) => {
    const newer = fresh.get(message.id);
    fresh.delete(message.id);
    return newer ?? message;
  });
  return [...replaced, ...fresh.values()];
}

/** A message as the page shows it before the service has stored it. */
export function localMessage(message: Pick<StoredMessage, 'id' | 'parent_id' | 'role' | 'content' | 'state'>): StoredMessage {
  return {
    ...message,
    created_at: Date.now() / 1000,
    reasoning: '',
    tool_calls: [],
    tool_call_id: null,
    error: null,
    prompt_tokens: null,
    completion_tokens: null,
    tokens_per_second: null,
    seq: 0,
  };
}
