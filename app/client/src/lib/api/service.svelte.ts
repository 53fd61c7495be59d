// What the service says about itself, polled: often while it is getting ready, seldom afterwards.

import { call } from './client';
import type { Phase, Status } from './contract';
import { RateMeter } from './transfer-rate';

const SOON_MS = 1000;
const READY_MS = 5000;
const PATIENCE_MS = 5000;

/** Why nothing can be sent just now; null when it can. */
export type Blocked = 'starting' | 'recovering' | 'failed' | 'stopping' | 'away' | null;

class Service {
  status = $state.raw<Status | null>(null);
  /** The last poll found nobody. */
  away = $state(false);
  /** Whether the chat has been open in this page's life: from then on it stays open. */
  wasReady = $state(false);
  /** The service's clock, seconds; moves on between polls. */
  now = $state(Date.now() / 1000);
  /** Bytes a second in the present phase. */
  rate = $state<number | null>(null);

  private readonly meter = new RateMeter();
  private skew = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private polling = false;

  get phase(): Phase | null {
    return this.status?.phase ?? null;
  }

  get blocked(): Blocked {
    if (this.away) return 'away';
    switch (this.phase) {
      case 'ready':
        return null;
      case 'recovering':
      case 'failed':
      case 'stopping':
        return this.phase;
      default:
        return this.wasReady ? 'recovering' : 'starting';
    }
  }

  /** Polls until the returned function is called. */
  start(): () => void {
    const tick = setInterval(() => (this.now = Date.now() / 1000 + this.skew), SOON_MS);
    const seen = (): void => {
      if (document.visibilityState === 'visible') void this.poll();
    };
    document.addEventListener('visibilitychange', seen);
    void this.poll();
    return () => {
      clearInterval(tick);
      clearTimeout(this.timer);
      document.removeEventListener('visibilitychange', seen);
    };
  }

  /** Asks now; also after a failed request, so that the page knows the reason at once. */
  async poll(): Promise<void> {
    if (this.polling) return;
    this.polling = true;
    clearTimeout(this.timer);
    try {
      const response = await call('api/status', { signal: AbortSignal.timeout(PATIENCE_MS), again: false });
      this.take(response, await response.json());
    } catch {
      this.away = true;
    } finally {
      this.polling = false;
      const settled = this.phase === 'ready' && !this.away;
      this.timer = setTimeout(() => void this.poll(), settled ? READY_MS : SOON_MS);
    }
  }

  private take(response: Response, body: unknown): void {
    if (!isStatus(body)) throw new TypeError('not a status');
    this.skew = skewOf(response.headers.get('Date'));
    this.now = Date.now() / 1000 + this.skew;
    this.rate = this.meter.read(body.progress, Date.now() / 1000);
    this.status = body;
    this.away = false;
    this.wasReady ||= body.phase === 'ready';
  }
}

// A proxy in between may answer in the service's place.
function isStatus(body: unknown): body is Status {
  return typeof body === 'object' && body !== null && 'phase' in body && 'model_name' in body;
}

// The browser's clock may be minutes off; less than two seconds is what the header's resolution explains.
function skewOf(date: string | null): number {
  const served = date === null ? NaN : Date.parse(date);
  const skew = (served - Date.now()) / 1000;
  return Math.abs(skew) > 2 ? skew : 0;
}

export const service = new Service();
