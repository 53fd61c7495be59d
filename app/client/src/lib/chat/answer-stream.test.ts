import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { StoredMessage, TurnEvent } from '../api/contract';
import { followAnswer, withEvent } from './answer-stream';
import { localMessage } from './message-tree';

const ANSWER = localMessage({ id: 'a', parent_id: 'q', role: 'assistant', content: '', state: 'writing' });
const event = (seq: number, more: Partial<TurnEvent> = {}): TurnEvent => ({
  seq,
  content: '',
  reasoning: '',
  tool_calls: [],
  message: null,
  ...more,
});
const rest = (seq: number, content: string): TurnEvent =>
  event(seq, { message: { ...ANSWER, content, state: 'done', seq } });

describe('an answer grows', () => {
  it('by what is new', () => {
    const one = withEvent(ANSWER, event(1, { reasoning: 'Hm. ' }));
    const two = withEvent(one, event(4, { content: '你好' }));
    expect(two).toMatchObject({ reasoning: 'Hm. ', content: '你好', seq: 4, state: 'writing' });
  });

  it('not by what it has already', () => {
    const one = withEvent(ANSWER, event(2, { content: 'once' }));
    expect(withEvent(one, event(2, { content: 'once' }))).toBe(one);
    expect(withEvent(one, event(1, { content: 'once' }))).toBe(one);
  });

  it('by tool calls that take the place of those before', () => {
    const call = { id: '1', name: 'f', arguments: '{}' };
    const one = withEvent(ANSWER, event(1, { tool_calls: [call] }));
    const two = withEvent(one, event(2, { tool_calls: [call, { ...call, id: '2' }] }));
    expect(withEvent(two, event(3)).tool_calls).toHaveLength(2);
  });

  it('into the whole message', () => {
    const before = withEvent(ANSWER, event(1, { content: 'an older beginning' }));
    const whole = { ...ANSWER, content: 'another', seq: 0 };
    expect(withEvent(before, event(7, { message: whole }))).toMatchObject({ content: 'another', seq: 7, state: 'writing' });
  });
});

describe('followAnswer', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  function answerWith(...answers: (() => Response)[]): string[] {
    const requests: string[] = [];
    vi.stubGlobal('fetch', (path: string) => {
      requests.push(path);
      return Promise.resolve().then(() => (answers.shift() ?? answers.at(-1) ?? Response.error)());
    });
    return requests;
  }

  const sse = (...events: TurnEvent[]): Response =>
    new Response(events.map((each) => `data: ${JSON.stringify(each)}\n\n`).join(''));
  const lost = (): Response => {
    throw new TypeError('failed to fetch');
  };

  async function run(abort = new AbortController()): Promise<StoredMessage[]> {
    const shown: StoredMessage[] = [];
    const done = followAnswer(ANSWER, (message) => shown.push(message), abort.signal);
    done.catch(() => undefined);
    await vi.runAllTimersAsync();
    await done;
    return shown;
  }

  it('hands on the whole at the end', async () => {
    const requests = answerWith(() => sse(event(1, { content: 'Hel' }), event(2, { content: 'lo' }), rest(2, 'Hello')));
    expect((await run()).at(-1)).toMatchObject({ content: 'Hello', state: 'done' });
    expect(requests).toEqual(['api/turns/a/events?after=0']);
  });

  it('takes up behind what has come, whatever goes wrong in between', async () => {
    const requests = answerWith(
      () => sse(event(1, { content: 'one ' })),
      lost,
      () => Response.json({ error: { code: 'starting' } }, { status: 503 }),
      () => sse(event(3, { content: 'two three' })),
      () => sse(rest(4, 'one two three.')),
    );
    expect((await run()).at(-1)?.content).toBe('one two three.');
    expect(requests.map((path) => path.split('=')[1])).toEqual(['0', '1', '1', '1', '3']);
  });

  it('gives up where there is nothing any more', async () => {
    answerWith(() => Response.json({ error: { code: 'message_not_found' } }, { status: 404 }));
    await expect(run()).rejects.toMatchObject({ kind: 'not_found' });
  });

  it('ends when nobody looks any more', async () => {
    answerWith(lost, lost, lost);
    const abort = new AbortController();
    const step = followAnswer(ANSWER, () => undefined, abort.signal);
    const ended = expect(step).rejects.toMatchObject({ name: 'AbortError' });
    await vi.advanceTimersByTimeAsync(100);
    abort.abort();
    await ended;
  });
});
