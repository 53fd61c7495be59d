// Whether an element has come near the part of the page that is seen. Once it has, it stays so.

const MARGIN = '1200px 0px';

const waiting = new Map<Element, () => void>();
let observer: IntersectionObserver | null = null;

function observe(element: Element, came: () => void): () => void {
  observer ??= new IntersectionObserver(
    (entries) => entries.filter(({ isIntersecting }) => isIntersecting).forEach(({ target }) => waiting.get(target)?.()),
    { root: document.querySelector('.scroll'), rootMargin: MARGIN },
  );
  waiting.set(element, came);
  observer.observe(element);
  return () => {
    waiting.delete(element);
    observer?.unobserve(element);
  };
}

export class Near {
  seen = $state(false);

  readonly attach = (element: Element): (() => void) => {
    const stop = observe(element, () => {
      this.seen = true;
      stop();
    });
    return stop;
  };
}
