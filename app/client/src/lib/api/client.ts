// The one place through which the page calls the service: relative addresses, JSON, one shape of failure.

import { events } from './sse';

export type FailureKind = 'away' | 'signed_out' | 'busy' | 'not_ready' | 'storage' | 'too_long' | 'gone' | 'cut' | 'refused' | 'broken';

/** The service didn't do what was asked. `detail` is its own sentence, empty where it said none. */
export class ApiFailure extends Error {
  constructor(
    readonly kind: FailureKind,
    readonly detail: string = '',
    readonly status: number = 0,
    /** Seconds after which the service wants to be asked again. */
    readonly retryAfter: number | null = null,
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

/** What lib/ui/access.svelte.ts knows of who is signed in; there and not here, since signing in is a call as well. */
export const door = {
  /** Goes with whatever changes something, so that no page of another site can do it. */
  csrfToken: null as string | null,
  /** Nobody is signed in any more. */
  shut: (): void => {},
  /** Asks for the token anew, which another tab may have changed; whether there is one. */
  renew: (): Promise<boolean> => Promise.resolve(false),
};

/**
 * Calls the service; the answer is a success.
 *
 * @throws ApiFailure, or an AbortError when `signal` was fired.
 */
export async function call(path: string, options: Call = {}): Promise<Response> {
  const waits = (options.again ?? options.method !== 'POST') ? AGAIN_MS : [];
  for (let renewed = false; ; renewed = true) {
    const response = await reach(path, initOf(options), waits);
    if (response.ok) return response;
    const { failure, code } = await refusal(response);
    if (response.status === 401) door.shut();
    if (code !== 'csrf' || renewed || !(await door.renew())) throw failure;
  }
}

function initOf({ method = 'GET', body, signal }: Call): RequestInit {
  const headers: Record<string, string> = {};
  const init: RequestInit = { method, cache: 'no-store', headers };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    headers['Content-Type'] = 'application/json';
  }
  if (method !== 'GET' && door.csrfToken !== null) headers['X-CSRFToken'] = door.csrfToken;
  if (signal) init.signal = signal;
  return init;
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

async function refusal(response: Response): Promise<{ failure: ApiFailure; code: string }> {
  let error: WireError = {};
  try {
    error = ((await response.json()) as { readonly error?: WireError }).error ?? {};
  } catch {
    // Not the service's own answer, such as a proxy's page: the status must do.
  }
  const code = error.code ?? '';
  const seconds = Number.parseInt(response.headers.get('Retry-After') ?? '', 10);
  const retryAfter = Number.isNaN(seconds) ? null : seconds;
  return { failure: new ApiFailure(kindOf(response.status, code), error.message ?? '', response.status, retryAfter), code };
}

/** What an error's status and code mean to somebody who reads the page. */
export function kindOf(status: number, code: string): FailureKind {
  if (code === 'context_length_exceeded') return 'too_long';
  if (status === 507 || code === 'storage_unavailable') return 'storage';
  if (status === 401) return 'signed_out';
  if (status === 429) return 'busy';
  if (status === 404) return 'gone';
  if (status === 502 || status === 503 || status === 504) return 'not_ready';
  return status >= 500 ? 'broken' : 'refused';
}
