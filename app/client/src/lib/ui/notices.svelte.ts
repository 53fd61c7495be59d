// Short messages about an action that worked or failed. They disappear by themselves.

const SHOWN_MS = 7000;
const MOST_SHOWN = 3;

export interface Notice {
  readonly id: number;
  readonly text: string;
  readonly alarm: boolean;
}

class Notices {
  all = $state.raw<readonly Notice[]>([]);
  private nextId = 1;

  show(text: string, alarm = false): void {
    const id = this.nextId++;
    this.all = [...this.all.slice(1 - MOST_SHOWN), { id, text, alarm }];
    setTimeout(() => this.dismiss(id), SHOWN_MS);
  }

  dismiss(id: number): void {
    this.all = this.all.filter((notice) => notice.id !== id);
  }
}

export const notices = new Notices();
