// What can go wrong with a call, as the rest of the page sees it.

/** What a failure means for the page; the sentence for it is in lib/text/failure-text.ts. */
export type FailureKind =
  | 'unreachable'
  | 'signed_out'
  | 'busy'
  | 'not_ready'
  | 'storage'
  | 'too_long'
  | 'not_found'
  | 'cut_off'
  | 'refused'
  | 'internal';

/** What the service's error carries; all of it is empty if the service did not answer itself. */
export interface FailureDetails {
  /** The service's own sentence, in English. */
  readonly message?: string;
  /** `error.code` on the wire. */
  readonly code?: string;
  /** HTTP status. */
  readonly status?: number;
  /** Seconds after which the service wants to be asked again. */
  readonly retryAfter?: number | null;
}

export class ApiFailure extends Error {
  readonly code: string;
  readonly status: number;
  readonly retryAfter: number | null;

  constructor(
    readonly kind: FailureKind,
    { message = '', code = '', status = 0, retryAfter = null }: FailureDetails = {},
  ) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

interface WireError {
  readonly message?: string;
  readonly code?: string | null;
}

/** The failure that a response with an error status stands for. */
export async function failureOfResponse(response: Response): Promise<ApiFailure> {
  let error: WireError = {};
  try {
    error = ((await response.json()) as { readonly error?: WireError }).error ?? {};
  } catch {
    // Somebody else answered, such as a proxy with a page of its own: only the status is known.
  }
  const code = error.code ?? '';
  const seconds = Number.parseInt(response.headers.get('Retry-After') ?? '', 10);
  return new ApiFailure(kindOf(response.status, code), {
    message: error.message ?? '',
    code,
    status: response.status,
    retryAfter: Number.isNaN(seconds) ? null : seconds,
  });
}

/** Turns anything that was thrown into a failure. */
export function failureOf(error: unknown): ApiFailure {
  if (error instanceof ApiFailure) return error;
  return new ApiFailure('internal', { message: error instanceof Error ? error.message : '' });
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

function kindOf(status: number, code: string): FailureKind {
  if (code === 'context_length_exceeded') return 'too_long';
  if (status === 507 || code === 'storage_unavailable') return 'storage';
  if (status === 401) return 'signed_out';
  if (status === 429) return 'busy';
  if (status === 404) return 'not_found';
  if (status === 502 || status === 503 || status === 504) return 'not_ready';
  return status >= 500 ? 'internal' : 'refused';
}
