// The side bar: beside the chat on wide screens, over it on narrow ones.

import { load, save } from '../storage';

const KEY = 'berth.sidebar';
const NARROW = '(max-width: 52rem)';

class Layout {
  narrow = $state(false);
  private openWhenWide = $state(true);
  private openWhenNarrow = $state(false);

  get open(): boolean {
    return this.narrow ? this.openWhenNarrow : this.openWhenWide;
  }

  start(): () => void {
    this.openWhenWide = load(() => localStorage, KEY) !== 'closed';
    const query = matchMedia(NARROW);
    const read = (): void => {
      this.narrow = query.matches;
      this.openWhenNarrow = false;
    };
    read();
    query.addEventListener('change', read);
    return () => query.removeEventListener('change', read);
  }

  toggle(): void {
    this.set(!this.open);
  }

  set(open: boolean): void {
    if (this.narrow) {
      this.openWhenNarrow = open;
      return;
    }
    this.openWhenWide = open;
    save(() => localStorage, KEY, open ? 'open' : 'closed');
  }

  /** Closes the side bar if it covers the page. */
  closeDrawer(): void {
    this.openWhenNarrow = false;
  }
}

export const layout = new Layout();
