import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { call, json, stream } from './client';
import { ApiFailure } from './failure';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function answerWith(...answers: (() => Response)[]) {
  const fetch = vi.fn((_path: string, _init: RequestInit) => {
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    return answer ? Promise.resolve().then(answer) : Promise.reject(new TypeError('no answer'));
  });
  vi.stubGlobal('fetch', fetch);
  return fetch;
}

const lost = (): Response => {
  throw new TypeError('failed to fetch');
};
const fine = (): Response => Response.json({ id: 'a' });

async function failure(step: Promise<unknown>): Promise<ApiFailure> {
  const caught = step.then(
    () => undefined,
    (error: unknown) => error,
  );
  await vi.runAllTimersAsync();
  const error = await caught;
  if (error instanceof ApiFailure) return error;
  throw new Error('it did not fail as it should');
}

describe('call', () => {
  it('sends JSON to a relative address', async () => {
    const fetch = answerWith(fine);
    expect(await json('api/conversations', { method: 'POST', body: { id: 'a' } })).toEqual({ id: 'a' });
    expect(fetch.mock.calls[0]?.[0]).toBe('api/conversations');
    expect(fetch.mock.calls[0]?.[1]).toMatchObject({
      method: 'POST',
      body: '{"id":"a"}',
      headers: { 'Content-Type': 'application/json' },
    });
  });

  it('retries after a lost connection if that is harmless', async () => {
    const fetch = answerWith(lost, lost, fine);
    const answer = call('api/x', { method: 'POST', retry: true });
    await vi.runAllTimersAsync();
    expect((await answer).ok).toBe(true);
    expect(fetch).toHaveBeenCalledTimes(3);
  });

  it('does not retry by itself if the action might be done twice', async () => {
    const fetch = answerWith(lost);
    expect((await failure(call('api/x', { method: 'POST' }))).kind).toBe('unreachable');
    expect(fetch).toHaveBeenCalledTimes(1);
  });

  it('gives up in the end', async () => {
    answerWith(lost);
    expect((await failure(call('api/x'))).kind).toBe('unreachable');
  });

  it('can be aborted while it waits for a retry', async () => {
    answerWith(lost);
    const abort = new AbortController();
    const step = expect(call('api/x', { signal: abort.signal })).rejects.toMatchObject({ name: 'AbortError' });
    await vi.advanceTimersByTimeAsync(100);
    abort.abort();
    await step;
  });

  it.each([
    [429, null, 'busy'],
    [404, null, 'not_found'],
    [503, 'model_not_ready', 'not_ready'],
    [502, null, 'not_ready'],
    [400, 'context_length_exceeded', 'too_long'],
    [400, 'invalid_value', 'refused'],
    [503, 'storage_unavailable', 'storage'],
    [507, 'storage_full', 'storage'],
    [500, 'internal_error', 'internal'],
  ])('knows what a %d %s means', async (status, code, kind) => {
    answerWith(() => Response.json({ error: { message: 'because', code } }, { status }));
    expect(await failure(call('api/x'))).toMatchObject({ kind, code: code ?? '', message: 'because', status });
  });

  it('copes with a proxy that answers in HTML', async () => {
    answerWith(() => new Response('<h1>Bad gateway</h1>', { status: 502 }));
    expect(await failure(call('api/x'))).toMatchObject({ kind: 'not_ready', code: '', message: '' });
    answerWith(() => new Response('<h1>Welcome to the hotel</h1>'));
    expect(await failure(json('api/x'))).toMatchObject({ kind: 'cut_off' });
  });
});

it('passes on the events of a stream', async () => {
  answerWith(() => new Response(': hi\n\ndata: {"seq":1}\n\ndata: {"seq":2}\n\n'));
  const events: string[] = [];
  for await (const data of stream('api/x', new AbortController().signal)) events.push(data);
  expect(events).toEqual(['{"seq":1}', '{"seq":2}']);
});
