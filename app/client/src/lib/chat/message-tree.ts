// A conversation's messages as the tree they are: versions of a message are children of the same parent.

import type { StoredMessage } from '../api/contract';

export type Messages = readonly StoredMessage[];

/** Look-ups in one state of the messages. */
export class Tree {
  private readonly byId = new Map<string, StoredMessage>();
  private readonly below = new Map<string | null, StoredMessage[]>();

  constructor(messages: Messages) {
    for (const message of messages) this.byId.set(message.id, message);
    for (const message of messages) {
      const parent = this.parentOf(message);
      const others = this.below.get(parent);
      if (others) others.push(message);
      else this.below.set(parent, [message]);
    }
  }

  get(id: string | null): StoredMessage | undefined {
    return id === null ? undefined : this.byId.get(id);
  }

  /** From the first message to the newest end below `leafId`; below the newest first message where that is unknown. */
  branch(leafId: string | null): StoredMessage[] {
    const found: StoredMessage[] = [];
    let message = this.end(this.get(leafId) ?? this.below.get(null)?.at(-1));
    while (message) {
      found.push(message);
      message = this.get(message.parent_id);
    }
    return found.reverse();
  }

  /** The message and its other versions, oldest first. */
  versions(message: StoredMessage): Messages {
    const siblings = this.below.get(this.parentOf(message)) ?? [];
    return siblings.filter(({ role }) => role === message.role);
  }

  /** The newest end of the branches that go through a message. */
  end(message: StoredMessage | undefined): StoredMessage | undefined {
    let at = message;
    for (let next = at; next; next = this.below.get(next.id)?.at(-1)) at = next;
    return at;
  }

  /** The message's id and those of everything that answers it. */
  subtree(id: string): ReadonlySet<string> {
    const found = new Set<string>([id]);
    // Grows while it is walked, so that it comes to the end of every branch.
    for (const each of found) for (const child of this.below.get(each) ?? []) found.add(child.id);
    return found;
  }

  // A message whose parent is not there counts as a first one, so that it is seen at least.
  private parentOf(message: StoredMessage): string | null {
    return message.parent_id !== null && this.byId.has(message.parent_id) ? message.parent_id : null;
  }
}

/** With a message in the place of the one of its id, or behind all others. */
export function put(messages: Messages, ...added: Messages): Messages {
  const fresh = new Map(added.map((message) => [message.id, message]));
  const replaced = messages.map((message) => {
    const newer = fresh.get(message.id);
    fresh.delete(message.id);
    return newer ?? message;
  });
  return [...replaced, ...fresh.values()];
}

/** A message as the page shows it before the service has answered. */
export function sketch(message: Pick<StoredMessage, 'id' | 'parent_id' | 'role' | 'content' | 'state'>): StoredMessage {
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
