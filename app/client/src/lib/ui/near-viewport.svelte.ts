// Whether an element has come close to the visible part of the page. Once reached, it stays reached.

const MARGIN = '1200px 0px';

const callbacks = new Map<Element, () => void>();
let observer: IntersectionObserver | null = null;

function observe(element: Element, onReached: () => void): () => void {
  observer ??= new IntersectionObserver(
    (entries) => entries.filter(({ isIntersecting }) => isIntersecting).forEach(({ target }) => callbacks.get(target)?.()),
    { root: document.querySelector('.scroll'), rootMargin: MARGIN },
  );
  callbacks.set(element, onReached);
  observer.observe(element);
  return () => {
    callbacks.delete(element);
    observer?.unobserve(element);
  };
}

export class NearViewport {
  reached = $state(false);

  readonly attach = (element: Element): (() => void) => {
    const stop = observe(element, () => {
      this.reached = true;
      stop();
    });
    return stop;
  };
}
