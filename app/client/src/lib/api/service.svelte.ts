// The status that the service reports, polled: often while the model is being prepared, seldom afterwards.

import { call } from './client';
import type { Phase, Status } from './contract';
import { RateMeter } from './transfer-rate';

const PREPARING_MS = 1000;
const READY_MS = 5000;
const TIMEOUT_MS = 5000;
const CLOCK_MS = 1000;

/** Why no message can be sent; null if one can. */
export type Blocked = 'starting' | 'recovering' | 'failed' | 'stopping' | 'unreachable' | null;

class Service {
  status = $state.raw<Status | null>(null);
  /** The last poll got no answer. */
  unreachable = $state(false);
  /** The model has been ready since this page was opened. From then on the chat stays open. */
  wasReady = $state(false);
  /** The service's clock, in seconds; it moves on between polls. */
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
    if (this.unreachable) return 'unreachable';
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
    const clock = setInterval(() => (this.now = Date.now() / 1000 + this.skew), CLOCK_MS);
    const pollIfVisible = (): void => {
      if (document.visibilityState === 'visible') void this.poll();
    };
    document.addEventListener('visibilitychange', pollIfVisible);
    void this.poll();
    return () => {
      clearInterval(clock);
      clearTimeout(this.timer);
      document.removeEventListener('visibilitychange', pollIfVisible);
    };
  }

  /** Polls at once. Also called after a failed request, so that the page shows the cause without delay. */
  async poll(): Promise<void> {
    if (this.polling) return;
    this.polling = true;
    clearTimeout(this.timer);
    try {
      const response = await call('api/status', { signal: AbortSignal.timeout(TIMEOUT_MS), retry: false });
      this.apply(response, await response.json());
    } catch {
      this.unreachable = true;
    } finally {
      this.polling = false;
      const ready = this.phase === 'ready' && !this.unreachable;
      this.timer = setTimeout(() => void this.poll(), ready ? READY_MS : PREPARING_MS);
    }
  }

  private apply(response: Response, body: unknown): void {
    if (!isStatus(body)) throw new TypeError('not a status');
    this.skew = skewOf(response.headers.get('Date'));
    this.now = Date.now() / 1000 + this.skew;
    this.rate = this.meter.read(body.progress, Date.now() / 1000);
    this.status = body;
    this.unreachable = false;
    this.wasReady ||= body.phase === 'ready';
  }
}

// A proxy may have answered instead of the service.
function isStatus(body: unknown): body is Status {
  return typeof body === 'object' && body !== null && 'phase' in body && 'model_name' in body;
}

// Seconds that the browser's clock is behind. The Date header has whole seconds, so less than two say nothing.
function skewOf(date: string | null): number {
  const serviceTime = date === null ? NaN : Date.parse(date);
  const skew = (serviceTime - Date.now()) / 1000;
  return Math.abs(skew) > 2 ? skew : 0;
}

export const service = new Service();
