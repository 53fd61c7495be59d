import { describe, expect, it } from 'vitest';
import { en } from '../../locale/en';
import { zh } from '../../locale/zh';
import { ApiFailure, type FailureKind } from '../api/failure';
import { failureText, messageErrorText } from './failure-text';

const CODES = Object.keys(en.errors) as (keyof typeof en.errors)[];
const failure = (kind: FailureKind, details: ConstructorParameters<typeof ApiFailure>[1] = {}): ApiFailure =>
  new ApiFailure(kind, details);

describe.each([
  ['en', en],
  ['zh', zh],
] as const)('in %s', (_language, words) => {
  it.each(CODES)('%s has a sentence', (code) => {
    expect(failureText(words, failure('refused', { code, status: 400 }))).toBe(words.errors[code]);
    expect(words.errors[code]).toMatch(/[.。]$/);
  });

  it('a code that the page knows hides the English sentence of the service', () => {
    expect(failureText(words, failure('internal', { code: 'engine_died', message: 'details' }))).toBe(words.errors.engine_died);
    expect(messageErrorText(words, { code: 'engine_died', message: 'details' })).toBe(words.errors.engine_died);
  });

  it('a code that only names a class of errors keeps it', () => {
    const text = failureText(words, failure('refused', { code: 'invalid_value', message: 'top_p: should be from 0 to 1' }));
    expect(text).toBe(words.sentences(words.errors.invalid_value, words.failure.detail('top_p: should be from 0 to 1')));
  });

  it.each(['no_such_code', '', 'toString', '__proto__'])('the unknown code %j falls back to the kind and the service', (code) => {
    const text = failureText(words, failure('internal', { code, message: 'because' }));
    expect(text).toBe(words.sentences(words.failure.internal, words.failure.detail('because')));
    expect(messageErrorText(words, { code, message: 'because' })).toBe(words.failure.detail('because'));
    expect(messageErrorText(words, { code, message: '' })).toBe('');
  });

  it('without an answer of the service there is the kind alone', () => {
    expect(failureText(words, failure('unreachable'))).toBe(words.failure.unreachable);
  });

  it('says when to try again if waiting helps', () => {
    const busy = failureText(words, failure('busy', { code: 'queue_full', retryAfter: 7 }));
    expect(busy).toBe(words.sentences(words.errors.queue_full, words.failure.retryIn(7)));
    const full = failureText(words, failure('storage', { code: 'storage_full', retryAfter: 30 }));
    expect(full).toBe(words.errors.storage_full);
  });
});
