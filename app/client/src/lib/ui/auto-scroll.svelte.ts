// Keeps the end of a growing text in view until the reader scrolls up, and again once they are back at the end.

const END_PX = 48;

export class AutoScroll {
  following = $state(true);
  private scroller: HTMLElement | null = null;

  /** An attachment for the scrolling element; its first child is what grows. */
  readonly attach = (scroller: HTMLElement): (() => void) => {
    this.scroller = scroller;
    let top = scroller.scrollTop;
    const onScroll = (): void => {
      const below = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
      const up = scroller.scrollTop < top;
      top = scroller.scrollTop;
      if (up && below > 1) this.following = false;
      else if (below < END_PX) this.following = true;
    };
    const resizes = new ResizeObserver(() => {
      if (this.following) scroller.scrollTop = scroller.scrollHeight;
    });
    scroller.addEventListener('scroll', onScroll, { passive: true });
    resizes.observe(scroller);
    if (scroller.firstElementChild) resizes.observe(scroller.firstElementChild);
    return () => {
      this.scroller = null;
      scroller.removeEventListener('scroll', onScroll);
      resizes.disconnect();
    };
  };

  /** Scrolls to the end and follows it from there. */
  scrollToEnd(): void {
    this.following = true;
    if (this.scroller) this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}
