// The address names the open conversation (`#c=<id>`), so that reload, back and bookmarks work. No id means a new chat.

const CONVERSATION = /^#c=([0-9a-f-]{36})$/;

class Route {
  id = $state<string | null>(null);

  start(): () => void {
    const read = (): void => void (this.id = CONVERSATION.exec(location.hash)?.[1] ?? null);
    read();
    addEventListener('hashchange', read);
    addEventListener('popstate', read);
    return () => {
      removeEventListener('hashchange', read);
      removeEventListener('popstate', read);
    };
  }

  /** Opens a conversation or a new chat; the browser's back button returns to the one before. */
  go(id: string | null): void {
    if (id !== this.id) history.pushState(null, '', addressOf(id));
    this.id = id;
  }

  /** Gives a new chat its id, without a history entry for the empty chat. */
  replace(id: string | null): void {
    history.replaceState(null, '', addressOf(id));
    this.id = id;
  }
}

function addressOf(id: string | null): string {
  return id === null ? `${location.pathname}${location.search}` : `#c=${id}`;
}

export const route = new Route();
