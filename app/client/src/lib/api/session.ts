// The page's session as each call needs it. lib/ui/access.svelte.ts fills it in: it signs in by calls of its own, so
// lib/api cannot import it.

export const session = {
  /** Sent with every change, so that a page of another site cannot make one. */
  csrfToken: null as string | null,
  /** Called when the service answers that nobody is signed in. */
  onSignedOut: (): void => {},
  /** Fetches the token again, since another tab may have changed it; false if there is none. */
  renewToken: (): Promise<boolean> => Promise.resolve(false),
};
