// What went wrong, in the page's language. The service's errors carry a code; src/locale/errors.*.ts has a sentence for each.

import type { Words } from '../../locale/en';
import type { MessageError } from '../api/contract';
import type { ApiFailure } from '../api/failure';

type ErrorCode = keyof Words['errors'];

// Only the service's own sentence says which field or which file is meant.
const NEEDS_DETAIL: ReadonlySet<string> = new Set<ErrorCode>([
  'bad_request',
  'invalid_conversation',
  'invalid_request',
  'invalid_type',
  'invalid_value',
  'missing_required_parameter',
  'storage_unavailable',
  'unknown_parameter',
  'unsupported_parameter',
  'unsupported_value',
]);
// Waiting helps; with other kinds the user has to change something first.
const WORTH_WAITING: ReadonlySet<string> = new Set<ApiFailure['kind']>(['busy', 'not_ready']);

/** Why a call failed, and when to try again if the service says so. */
export function failureText(words: Words, failure: ApiFailure): string {
  const cause = codeText(words, failure) ?? withDetail(words, words.failure[failure.kind], failure.message);
  if (failure.retryAfter === null || !WORTH_WAITING.has(failure.kind)) return cause;
  return words.sentences(cause, words.failure.retryIn(failure.retryAfter));
}

/** Why an answer failed, as it is stored with the message. */
export function messageErrorText(words: Words, error: MessageError): string {
  return codeText(words, error) ?? (error.message === '' ? '' : words.failure.detail(error.message));
}

/** The sentence for a code; null for a code that this page does not know. */
function codeText(words: Words, { code, message }: MessageError): string | null {
  if (!Object.hasOwn(words.errors, code)) return null;
  const sentence = words.errors[code as ErrorCode];
  return NEEDS_DETAIL.has(code) ? withDetail(words, sentence, message) : sentence;
}

function withDetail(words: Words, sentence: string, message: string): string {
  return message === '' ? sentence : words.sentences(sentence, words.failure.detail(message));
}
