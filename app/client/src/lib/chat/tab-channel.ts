// Tabs of one browser inform each other about changed conversations.

const NAME = 'berth.conversations';

export class TabChannel {
  // Old browsers have no BroadcastChannel; there the other tab refreshes when it gets the focus.
  private readonly channel = typeof BroadcastChannel === 'undefined' ? null : new BroadcastChannel(NAME);

  /** Calls `onChange` with the id of a conversation that another tab changed; null means more than one. */
  listen(onChange: (id: string | null) => void): void {
    this.channel?.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
      onChange(typeof data === 'string' ? data : null);
    });
  }

  announce(id: string | null): void {
    this.channel?.postMessage(id);
  }
}
