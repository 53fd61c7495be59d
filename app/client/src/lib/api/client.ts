// All calls to the service: relative addresses, JSON in both directions, every error an ApiFailure.

import { ApiFailure, failureOfResponse, isAbort } from './failure';
import { session } from './session';
import { events } from './sse';

export interface CallOptions {
  readonly method?: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  /** Retries after a lost connection; by default every method but POST. Set it only if a repeated request is harmless. */
  readonly retry?: boolean;
}

const RETRY_DELAYS_MS = [300, 1000, 2500];

/**
 * Calls the service and returns a response that is a success.
 *
 * @throws ApiFailure, or an AbortError if `signal` fires.
 */
export async function call(path: string, options: CallOptions = {}): Promise<Response> {
  const delays = (options.retry ?? options.method !== 'POST') ? RETRY_DELAYS_MS : [];
  for (let renewed = false; ; renewed = true) {
    const response = await fetchWithRetries(path, requestOf(options), delays);
    if (response.ok) return response;
    const failure = await failureOfResponse(response);
    if (failure.status === 401) session.onSignedOut();
    if (failure.code !== 'csrf' || renewed || !(await session.renewToken())) throw failure;
  }
}

function requestOf({ method = 'GET', body, signal }: CallOptions): RequestInit {
  const headers: Record<string, string> = {};
  const request: RequestInit = { method, cache: 'no-store', headers };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    headers['Content-Type'] = 'application/json';
  }
  if (method !== 'GET' && session.csrfToken !== null) headers['X-CSRFToken'] = session.csrfToken;
  if (signal) request.signal = signal;
  return request;
}

/** Calls the service and reads its JSON. */
export async function json<T>(path: string, options?: CallOptions): Promise<T> {
  const response = await call(path, options);
  try {
    return (await response.json()) as T;
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiFailure('cut_off', { status: response.status });
  }
}

/** The data of each server-sent event, until the service or a proxy ends the stream. */
export async function* stream(path: string, signal: AbortSignal): AsyncGenerator<string> {
  const response = await call(path, { signal, retry: false });
  if (!response.body) throw new ApiFailure('cut_off');
  try {
    yield* events(response.body);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiFailure('cut_off');
  }
}

/** Waits; rejects with an AbortError as soon as the signal fires. */
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

async function fetchWithRetries(path: string, request: RequestInit, delays: readonly number[]): Promise<Response> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await fetch(path, request);
    } catch (error) {
      if (isAbort(error)) throw error;
      const delay = delays[attempt];
      if (delay === undefined) throw new ApiFailure('unreachable');
      await pause(delay, request.signal);
    }
  }
}
