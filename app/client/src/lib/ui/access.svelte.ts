// Signs in with the link from the log or with a typed key, and signs out.

import { call, json } from '../api/client';
import type { Session } from '../api/contract';
import { type ApiFailure, failureOf } from '../api/failure';
import { session } from '../api/session';
import { forgetDrafts } from '../chat/drafts';

const KEY_IN_ADDRESS = /^#key=(.+)$/;

class Access {
  /** The sign-in form covers the page. */
  locked = $state(false);
  signedIn = $state(false);
  /** Why the last key was not accepted. */
  failure = $state.raw<ApiFailure | null>(null);

  private unlock: () => void = () => {};

  /** Resolves as soon as the page may be shown: at once if no key is needed or somebody is signed in. */
  async start(): Promise<void> {
    const unlocked = new Promise<void>((resolve) => (this.unlock = resolve));
    session.onSignedOut = () => void this.refresh();
    session.renewToken = () => this.renewToken();
    addEventListener('hashchange', () => {
      if (KEY_IN_ADDRESS.test(location.hash)) void this.enter();
    });
    await this.enter();
    return unlocked;
  }

  /** Returns whether the service accepted the key. */
  async signIn(key: string): Promise<boolean> {
    this.failure = null;
    try {
      this.apply(await json<Session>('api/session', { method: 'POST', body: { key } }));
      return true;
    } catch (error) {
      this.failure = failureOf(error);
      return false;
    }
  }

  /** Ends the session and removes the drafts from this browser. */
  async signOut(): Promise<void> {
    try {
      await call('api/session', { method: 'DELETE' });
      forgetDrafts();
    } catch {
      // Unreachable, or signed out in another tab. The reload shows which.
    }
    location.reload();
  }

  /** Signs in with the key in the address, which is removed from the address and the history at once. */
  private async enter(): Promise<void> {
    const key = KEY_IN_ADDRESS.exec(location.hash)?.[1];
    if (key !== undefined) history.replaceState(null, '', `${location.pathname}${location.search}`);
    if (key === undefined || !(await this.signIn(decoded(key)))) await this.refresh();
  }

  private async refresh(): Promise<void> {
    try {
      this.apply(await json<Session>('api/session'));
    } catch {
      // The page itself says that the service cannot be reached, and comes back here at the first 401.
      this.unlock();
    }
  }

  private async renewToken(): Promise<boolean> {
    await this.refresh();
    return session.csrfToken !== null;
  }

  private apply(answer: Session): void {
    session.csrfToken = answer.csrf_token;
    this.signedIn = answer.signed_in;
    this.locked = answer.key_needed && !answer.signed_in;
    if (!this.locked) this.unlock();
  }
}

function decoded(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}

export const access = new Access();
