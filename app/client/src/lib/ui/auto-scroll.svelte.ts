// Scrolling that follows a growing text until the reader scrolls up, and again once they are back at the end.

const NEAR_PX = 48;

export class Follow {
  following = $state(true);
  private scroller: HTMLElement | null = null;

  /** An attachment for the scrolling element; its first child is what grows. */
  readonly attach = (scroller: HTMLElement): (() => void) => {
    this.scroller = scroller;
    let top = scroller.scrollTop;
    const moved = (): void => {
      const rest = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
      const up = scroller.scrollTop < top;
      top = scroller.scrollTop;
      if (up && rest > 1) this.following = false;
      else if (rest < NEAR_PX) this.following = true;
    };
    const grown = new ResizeObserver(() => {
      if (this.following) scroller.scrollTop = scroller.scrollHeight;
    });
    scroller.addEventListener('scroll', moved, { passive: true });
    grown.observe(scroller);
    if (scroller.firstElementChild) grown.observe(scroller.firstElementChild);
    return () => {
      this.scroller = null;
      scroller.removeEventListener('scroll', moved);
      grown.disconnect();
    };
  };

  /** Goes to the end and follows from there. */
  catchUp(): void {
    this.following = true;
    if (this.scroller) this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}
