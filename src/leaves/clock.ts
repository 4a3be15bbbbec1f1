import type { Millis } from './units.js';
import { millis } from './units.js';

/** Time as an argument: protocol and policy code sees a clock, never `Date.now` or a bare timer. */
export interface Clock {
  /** Monotonic milliseconds. */
  now(): Millis;
  /** Wall clock, milliseconds since the epoch. */
  wall(): Millis;
  /** Calls `callback` once after `delay`; returns the function that forgets it. */
  after(delay: Millis, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => millis(performance.now()),
  wall: () => millis(Date.now()),
  after: (delay, callback) => {
    const timer = setTimeout(callback, delay);
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delay`, or rejects with the signal's reason as soon as it aborts. */
export const pause = (clock: Clock, delay: Millis, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error);
    const onAbort = (): void => {
      forget();
      reject(signal?.reason as Error);
    };
    const forget = clock.after(delay, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });

/** What `work` resolves with; undefined when it takes longer than `delay`, or rejects. */
export const resultWithin = async <T>(
  clock: Clock,
  delay: Millis,
  work: Promise<T>,
): Promise<T | undefined> => {
  const settled = new AbortController();
  const late = pause(clock, delay, settled.signal).then(() => undefined);
  try {
    return await Promise.race([work, late]);
  } catch {
    return undefined;
  } finally {
    settled.abort();
  }
};
