// Where there is room: the side bar beside the chat on wide screens, over it on narrow ones.

import { load, save } from '../storage';

const KEY = 'berth.sidebar';
const NARROW = '(max-width: 52rem)';

class Layout {
  narrow = $state(false);
  private wide = $state(true);
  private drawer = $state(false);

  get open(): boolean {
    return this.narrow ? this.drawer : this.wide;
  }

  start(): () => void {
    this.wide = load(() => localStorage, KEY) !== 'closed';
    const query = matchMedia(NARROW);
    const read = (): void => {
      this.narrow = query.matches;
      this.drawer = false;
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
      this.drawer = open;
      return;
    }
    this.wide = open;
    save(() => localStorage, KEY, open ? 'open' : 'closed');
  }

  /** Something was picked in the drawer, which covers it. */
  picked(): void {
    this.drawer = false;
  }
}

export const layout = new Layout();
