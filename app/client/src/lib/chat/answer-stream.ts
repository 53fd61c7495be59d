// Follows an answer while the service writes it: from the start, after a reload, or in a second tab.

import { pause, stream } from '../api/client';
import type { StoredMessage, TurnEvent } from '../api/contract';
import { failureOf, isAbort } from '../api/failure';

const FRAME_MS = 16;
const BACKOFF_MS = [250, 500, 1000, 2000, 4000];

/** The answer with an event added; the same object if it has the event already. */
export function withEvent(message: StoredMessage, event: TurnEvent): StoredMessage {
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

/** Passes on at most one state per frame, however fast events arrive. */
class FrameThrottle {
  private latest: StoredMessage | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly show: (message: StoredMessage) => void) {}

  push(message: StoredMessage): void {
    this.latest = message;
    // A timer and not an animation frame: animation frames stop in a background tab.
    this.timer ??= setTimeout(() => this.flush(), FRAME_MS);
  }

  flush(): void {
    this.cancel();
    this.timer = undefined;
    if (this.latest) this.show(this.latest);
    this.latest = null;
  }

  cancel(): void {
    clearTimeout(this.timer);
  }
}

/**
 * Follows an answer until it is complete. After a lost connection it continues with the next event.
 *
 * @param show is called with the answer as it grows, and before the return with the whole.
 * @throws ApiFailure if the service refuses (such as an answer that was deleted), or an AbortError.
 */
export async function followAnswer(
  answer: StoredMessage,
  show: (message: StoredMessage) => void,
  signal: AbortSignal,
): Promise<void> {
  let message = answer;
  const frames = new FrameThrottle(show);
  try {
    for (let failures = 0; message.state === 'writing'; failures++) {
      if (failures > 0) await pause(BACKOFF_MS[Math.min(failures, BACKOFF_MS.length) - 1] ?? 0, signal);
      const seq = message.seq;
      try {
        for await (const data of stream(`api/turns/${message.id}/events?after=${seq}`, signal)) {
          message = withEvent(message, JSON.parse(data) as TurnEvent);
          frames.push(message);
          if (message.state !== 'writing') break;
        }
      } catch (error) {
        if (!isTransient(error)) throw error;
      }
      if (message.seq > seq) failures = 0;
    }
    frames.flush();
  } finally {
    frames.cancel();
  }
}

// Whether another attempt may succeed.
function isTransient(error: unknown): boolean {
  if (isAbort(error)) return false;
  return ['unreachable', 'cut_off', 'busy', 'not_ready', 'internal'].includes(failureOf(error).kind);
}
