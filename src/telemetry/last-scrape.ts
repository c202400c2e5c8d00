/** A Prometheus that has not asked for so long is none: intervals above two minutes make gaps in its graphs. */
const SCRAPER_GONE_MS = 120_000;

/** Knows whether somebody scrapes, and whether they have seen the turns that failed last. */
export class LastScrape {
  readonly #nowMs: () => number;
  #atMs = Number.NEGATIVE_INFINITY;
  #isBehind = false;
  #waiting: (() => void)[] = [];

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  turnFailed(): void {
    this.#isBehind = true;
  }

  scraped(): void {
    this.#atMs = this.#nowMs();
    this.#isBehind = false;
    for (const done of this.#waiting) done();
    this.#waiting = [];
  }

  /** Resolves when failed turns have been seen, or nobody comes to see them; after `maxMs` in any case. */
  async settled(maxMs: number): Promise<'seen' | 'unseen'> {
    if (!this.#isBehind) return 'seen';
    if (maxMs <= 0 || this.#nowMs() - this.#atMs > SCRAPER_GONE_MS) return 'unseen';
    const { promise, resolve } = Promise.withResolvers<'seen' | 'unseen'>();
    const timer = setTimeout(resolve, maxMs, 'unseen');
    this.#waiting.push(() => resolve('seen'));
    const outcome = await promise;
    clearTimeout(timer);
    return outcome;
  }
}
