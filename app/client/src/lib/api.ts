// The one place through which the page calls the service: relative addresses, JSON, one shape of failure.

import { events } from './sse';

export type FailureKind = 'away' | 'busy' | 'not_ready' | 'too_long' | 'gone' | 'cut' | 'refused' | 'broken';

/** The service didn't do what was asked. `detail` is its own sentence, empty where it said none. */
export class ApiFailure extends Error {
  constructor(
    readonly kind: FailureKind,
    readonly detail: string = '',
    readonly status: number = 0,
  ) {
    super(`${kind}: ${detail}`);
  }
}

export interface Call {
  readonly method?: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  /** Asks again after a lost connection: only for what the service does once however often it is asked. */
  readonly again?: boolean;
}

interface WireError {
  readonly message?: string;
  readonly code?: string | null;
}

const AGAIN_MS = [300, 1000, 2500];

/**
 * Calls the service; the answer is a success.
 *
 * @throws ApiFailure, or an AbortError when `signal` was fired.
 */
export async function call(path: string, options: Call = {}): Promise<Response> {
  const { method = 'GET', body, signal, again = method !== 'POST' } = options;
  const init: RequestInit = { method, cache: 'no-store' };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { 'Content-Type': 'application/json' };
  }
  if (signal) init.signal = signal;
  const response = await reach(path, init, again ? AGAIN_MS : []);
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Calls the service and reads its JSON. */
export async function json<T>(path: string, options?: Call): Promise<T> {
  const response = await call(path, options);
  try {
    return (await response.json()) as T;
  } catch (error) {
    if (aborted(error)) throw error;
    throw new ApiFailure('cut', '', response.status);
  }
}

/** The data of each event of a stream; ends where the service, or whoever is in between, ends it. */
export async function* stream(path: string, signal: AbortSignal): AsyncGenerator<string> {
  const response = await call(path, { signal, again: false });
  if (!response.body) throw new ApiFailure('cut');
  try {
    yield* events(response.body);
  } catch (error) {
    if (aborted(error)) throw error;
    throw new ApiFailure('cut');
  }
}

/** What went wrong, whatever was thrown. */
export function failureOf(error: unknown): ApiFailure {
  return error instanceof ApiFailure ? error : new ApiFailure('broken', error instanceof Error ? error.message : '');
}

export function aborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

/** Waits, unless the signal is fired. */
export function pause(ms: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(new DOMException('aborted', 'AbortError'));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
}

async function reach(path: string, init: RequestInit, waits: readonly number[]): Promise<Response> {
  for (let tries = 0; ; tries++) {
    try {
      return await fetch(path, init);
    } catch (error) {
      if (aborted(error)) throw error;
      const wait = waits[tries];
      if (wait === undefined) throw new ApiFailure('away');
      await pause(wait, init.signal);
    }
  }
}

async function refusal(response: Response): Promise<ApiFailure> {
  let error: WireError = {};
  try {
    error = ((await response.json()) as { readonly error?: WireError }).error ?? {};
  } catch {
    // Not the service's own answer, such as a proxy's page: the status must do.
  }
  return new ApiFailure(kindOf(response.status, error.code ?? ''), error.message ?? '', response.status);
}

/** What an error's status and code mean to somebody who reads the page. */
export function kindOf(status: number, code: string): FailureKind {
  if (code === 'context_length_exceeded') return 'too_long';
  if (status === 429) return 'busy';
  if (status === 404) return 'gone';
  if (status === 502 || status === 503 || status === 504) return 'not_ready';
  return status >= 500 ? 'broken' : 'refused';
}
