// The address names the open conversation, so that reload, back and bookmarks work: `#c=<id>`; none is a new chat.

const FORM = /^#c=([0-9a-f-]{36})$/;

class Route {
  id = $state<string | null>(null);

  start(): () => void {
    const read = (): void => void (this.id = FORM.exec(location.hash)?.[1] ?? null);
    read();
    addEventListener('hashchange', read);
    addEventListener('popstate', read);
    return () => {
      removeEventListener('hashchange', read);
      removeEventListener('popstate', read);
    };
  }

  /** Opens a conversation, or a new chat; going back comes to what was open before. */
  go(id: string | null): void {
    if (id !== this.id) history.pushState(null, '', address(id));
    this.id = id;
  }

  /** The new chat has got its id: going back does not come to the empty one. */
  become(id: string | null): void {
    history.replaceState(null, '', address(id));
    this.id = id;
  }
}

function address(id: string | null): string {
  return id === null ? `${location.pathname}${location.search}` : `#c=${id}`;
}

export const route = new Route();
