// Short messages that go away by themselves: something was done, or could not be done.

const SHOWN_MS = 7000;

export interface Notice {
  readonly id: number;
  readonly text: string;
  readonly alarm: boolean;
}

class Notices {
  all = $state.raw<readonly Notice[]>([]);
  private next = 1;

  say(text: string, alarm = false): void {
    const id = this.next++;
    this.all = [...this.all.slice(-2), { id, text, alarm }];
    setTimeout(() => this.dismiss(id), SHOWN_MS);
  }

  dismiss(id: number): void {
    this.all = this.all.filter((notice) => notice.id !== id);
  }
}

export const notices = new Notices();
