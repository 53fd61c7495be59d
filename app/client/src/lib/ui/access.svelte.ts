// Who may look at the page: signs in by the link in the log or by a typed key, and out again.

import { type ApiFailure, call, door, failureOf, json } from '../api/client';
import type { Session } from '../api/contract';

const LINK = /^#key=(.+)$/;

/** Why a key let nobody in. */
export type Refusal =
  | { readonly kind: 'wrong' | 'away' | 'other' }
  | { readonly kind: 'throttled'; readonly seconds: number };

class Access {
  /** The page is covered until somebody signs in. */
  shut = $state(false);
  signedIn = $state(false);
  refusal = $state.raw<Refusal | null>(null);

  private letIn: () => void = () => {};

  /** Resolves once the page may be shown: at once where no key is asked for or somebody is signed in. */
  async start(): Promise<void> {
    const entered = new Promise<void>((resolve) => (this.letIn = resolve));
    door.shut = () => void this.ask();
    door.renew = () => this.renew();
    addEventListener('hashchange', () => {
      if (LINK.test(location.hash)) void this.enter();
    });
    await this.enter();
    return entered;
  }

  /** Whether the key was the right one. */
  async signIn(key: string): Promise<boolean> {
    this.refusal = null;
    try {
      this.take(await json<Session>('api/session', { method: 'POST', body: { key } }));
      return true;
    } catch (error) {
      this.refusal = refusalOf(failureOf(error));
      return false;
    }
  }

  /** Ends the session, and leaves nothing in the browser of what was written here. */
  async signOut(): Promise<void> {
    try {
      await call('api/session', { method: 'DELETE' });
      forgetDrafts();
    } catch {
      // Away, or signed out elsewhere: the page that comes next shows which.
    }
    location.reload();
  }

  /** By the key in the address, which is taken out of it and of the history at once, or as somebody known already. */
  private async enter(): Promise<void> {
    const key = LINK.exec(location.hash)?.[1];
    if (key !== undefined) history.replaceState(null, '', `${location.pathname}${location.search}`);
    if (key === undefined || !(await this.signIn(decoded(key)))) await this.ask();
  }

  private async ask(): Promise<void> {
    try {
      this.take(await json<Session>('api/session'));
    } catch {
      // Away: the page says so itself, and asks again as soon as the service refuses something.
      this.letIn();
    }
  }

  private async renew(): Promise<boolean> {
    await this.ask();
    return door.csrfToken !== null;
  }

  private take(session: Session): void {
    door.csrfToken = session.csrf_token;
    this.signedIn = session.signed_in;
    this.shut = session.key_needed && !session.signed_in;
    if (!this.shut) this.letIn();
  }
}

function forgetDrafts(): void {
  try {
    for (const name of Object.keys(localStorage)) if (name.startsWith('berth.draft')) localStorage.removeItem(name);
  } catch {
    // Nothing is kept where storage is forbidden.
  }
}

function refusalOf(failure: ApiFailure): Refusal {
  if (failure.status === 401) return { kind: 'wrong' };
  if (failure.status === 429) return { kind: 'throttled', seconds: failure.retryAfter ?? 60 };
  return { kind: failure.kind === 'away' ? 'away' : 'other' };
}

function decoded(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}

export const access = new Access();
