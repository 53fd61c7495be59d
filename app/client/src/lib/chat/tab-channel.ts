// Tabs of the same browser tell each other that a conversation changed.

const NAME = 'berth.conversations';

export class Tabs {
  // Missing in old browsers; then the other tab learns of it when it is looked at.
  private readonly channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(NAME);

  /** Calls `heard` with the id of a conversation that another tab changed; null: more than one. */
  listen(heard: (id: string | null) => void): void {
    this.channel?.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
      heard(typeof data === 'string' ? data : null);
    });
  }

  tell(id: string | null): void {
    this.channel?.postMessage(id);
  }
}
