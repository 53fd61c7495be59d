// One turn's answer, followed while the service writes it: from the start, after a reload, or in a second tab.

import { aborted, failureOf, pause, stream } from '../api/client';
import type { StoredMessage, TurnEvent } from '../api/contract';

const FRAME_MS = 16;
const BACKOFF_MS = [250, 500, 1000, 2000, 4000];

/** The answer with an event's part added; the same object where the event was known already. */
export function grown(message: StoredMessage, event: TurnEvent): StoredMessage {
  if (event.message) return { ...event.message, seq: event.seq };
  if (event.seq <= message.seq) return message;
  return {
    ...message,
    seq: event.seq,
    content: message.content + event.content,
    reasoning: message.reasoning + event.reasoning,
    tool_calls: event.tool_calls.length > 0 ? event.tool_calls : message.tool_calls,
  };
}

/** Hands on at most one state a frame, however fast they come. */
class Frames {
  private latest: StoredMessage | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly show: (message: StoredMessage) => void) {}

  push(message: StoredMessage): void {
    this.latest = message;
    // A timer, not an animation frame: those stand still in a tab that isn't looked at.
    this.timer ??= setTimeout(() => this.flush(), FRAME_MS);
  }

  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.latest) this.show(this.latest);
    this.latest = null;
  }

  drop(): void {
    clearTimeout(this.timer);
  }
}

/**
 * Follows an answer until it stands still; where the connection drops it is taken up again behind what has come.
 *
 * @param show is called with the answer as it grows, and before the return with the whole.
 * @throws ApiFailure when the service refuses (the answer is gone), or an AbortError.
 */
export async function follow(
  answer: StoredMessage,
  show: (message: StoredMessage) => void,
  signal: AbortSignal,
): Promise<void> {
  let message = answer;
  const frames = new Frames(show);
  try {
    for (let failures = 0; message.state === 'writing'; failures++) {
      if (failures > 0) await pause(BACKOFF_MS[Math.min(failures, BACKOFF_MS.length) - 1] ?? 0, signal);
      const seq = message.seq;
      try {
        for await (const data of stream(`api/turns/${message.id}/events?after=${seq}`, signal)) {
          message = grown(message, JSON.parse(data) as TurnEvent);
          frames.push(message);
          if (message.state !== 'writing') break;
        }
      } catch (error) {
        if (!passing(error)) throw error;
      }
      if (message.seq > seq) failures = 0;
    }
    frames.flush();
  } finally {
    frames.drop();
  }
}

// What may be over in a moment; anything else would be the same the next time.
function passing(error: unknown): boolean {
  if (aborted(error)) return false;
  return ['away', 'cut', 'busy', 'not_ready', 'broken'].includes(failureOf(error).kind);
}
