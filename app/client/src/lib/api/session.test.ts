import { afterEach, expect, it, vi } from 'vitest';
import { call } from './client';
import { ApiFailure } from './failure';
import { session } from './session';

afterEach(() => {
  vi.unstubAllGlobals();
  session.csrfToken = null;
  session.onSignedOut = () => {};
  session.renewToken = () => Promise.resolve(false);
});

function answers(...responses: Response[]) {
  const fetch = vi.fn((_path: string, _init: RequestInit) => Promise.resolve(responses.shift() ?? Response.error()));
  vi.stubGlobal('fetch', fetch);
  return fetch;
}

const refused = (status: number, code: string, headers: HeadersInit = {}): Response =>
  Response.json({ error: { message: 'no', code } }, { status, headers });
const fine = (): Response => Response.json({});

it('sends the token with what changes something, and with nothing else', async () => {
  const fetch = answers(fine(), fine());
  session.csrfToken = 'token';
  await call('api/x', { method: 'DELETE' });
  await call('api/x');
  expect(fetch.mock.calls[0]?.[1].headers).toEqual({ 'X-CSRFToken': 'token' });
  expect(fetch.mock.calls[1]?.[1].headers).toEqual({});
});

it('asks for a token that another tab has changed, once', async () => {
  const fetch = answers(refused(403, 'csrf'), fine());
  session.csrfToken = 'old';
  session.renewToken = () => {
    session.csrfToken = 'new';
    return Promise.resolve(true);
  };
  await call('api/x', { method: 'POST', body: {} });
  expect(fetch.mock.calls[1]?.[1].headers).toMatchObject({ 'X-CSRFToken': 'new' });
  answers(refused(403, 'csrf'), refused(403, 'csrf'), fine());
  await expect(call('api/x', { method: 'POST', body: {} })).rejects.toMatchObject({ status: 403 });
});

it('reports a 401 of any call', async () => {
  answers(refused(401, 'missing_api_key'));
  session.onSignedOut = vi.fn();
  await expect(call('api/x')).rejects.toMatchObject({ kind: 'signed_out' });
  expect(session.onSignedOut).toHaveBeenCalledOnce();
});

it('tells how long to wait', async () => {
  answers(refused(429, 'too_many_wrong_keys', { 'Retry-After': '37' }));
  const failure = await call('api/session', { method: 'POST', body: {} }).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(ApiFailure);
  expect(failure).toMatchObject({ kind: 'busy', retryAfter: 37 });
});
