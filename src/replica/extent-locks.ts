import assert from 'node:assert/strict';

export type LockMode = 'shared' | 'exclusive';

/** A hold on an extent, or a place in the queue for one; give it to `release` exactly once. */
export interface ExtentLock {
  readonly offset: number;
  readonly length: number;
  readonly mode: LockMode;
}

/** Longer than any image: locks everything from the offset on. */
export const TO_THE_END = Number.MAX_SAFE_INTEGER;

interface Entry extends ExtentLock {
  /** Earlier entries that overlap and conflict and are not released yet. */
  blockers: number;
  /** Later entries that count this one among their blockers. */
  readonly blocked: Entry[];
  granted: (() => void) | undefined;
  state: 'waiting' | 'held' | 'gone';
}

/**
 * Locks on the extents of one image. Whoever asked first is served first where extents overlap, whichever the modes:
 * a shared request behind a waiting exclusive one waits too.
 *
 * Invariant: two held locks that overlap are both shared.
 */
export class ExtentLocks {
  readonly #entries = new Set<Entry>();

  /** Locks held and waited for. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * Grants at once where nothing earlier conflicts (the lock itself is returned, no promise), else when the last
   * conflicting earlier lock is released. Rejects with the signal's reason if it aborts while waiting.
   */
  acquire(
    offset: number,
    length: number,
    mode: LockMode,
    signal?: AbortSignal,
  ): ExtentLock | Promise<ExtentLock> {
    const entry: Entry = {
      offset,
      length,
      mode,
      blockers: 0,
      blocked: [],
      granted: undefined,
      state: 'held',
    };
    for (const earlier of this.#entries) {
      if (!conflict(earlier, entry)) continue;
      entry.blockers++;
      earlier.blocked.push(entry);
    }
    this.#entries.add(entry);
    return entry.blockers === 0 ? entry : this.#wait(entry, signal);
  }

  /** Grants only if that is possible at once. */
  tryAcquire(offset: number, length: number, mode: LockMode): ExtentLock | undefined {
    return this.isFree(offset, length, mode) ? (this.acquire(offset, length, mode) as ExtentLock) : undefined;
  }

  /** Whether `acquire` would grant at once. */
  isFree(offset: number, length: number, mode: LockMode): boolean {
    const wanted = { offset, length, mode };
    for (const earlier of this.#entries) if (conflict(earlier, wanted)) return false;
    return true;
  }

  /** Resolves when every lock held or waited for now has been released; what is asked for later does not wait. */
  passed(): Promise<void> {
    if (this.#entries.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const barrier: Entry = {
        offset: 0,
        length: TO_THE_END,
        mode: 'exclusive',
        blockers: this.#entries.size,
        blocked: [],
        granted: resolve,
        state: 'waiting',
      };
      for (const earlier of this.#entries) earlier.blocked.push(barrier);
    });
  }

  release(lock: ExtentLock): void {
    const entry = lock as Entry;
    assert(entry.state === 'held' && this.#entries.has(entry), 'released a lock that is not held');
    this.#remove(entry);
  }

  #wait(entry: Entry, signal: AbortSignal | undefined): Promise<ExtentLock> {
    entry.state = 'waiting';
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        if (entry.state !== 'waiting') return;
        this.#remove(entry);
        reject(signal?.reason as Error);
      };
      entry.granted = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve(entry);
      };
      if (signal?.aborted) return onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  #remove(entry: Entry): void {
    entry.state = 'gone';
    this.#entries.delete(entry);
    for (const later of entry.blocked) {
      later.blockers--;
      if (later.blockers > 0 || later.state !== 'waiting') continue;
      later.state = 'held';
      later.granted?.();
    }
  }
}

const conflict = (a: ExtentLock, b: ExtentLock): boolean =>
  (a.mode === 'exclusive' || b.mode === 'exclusive') &&
  a.offset < b.offset + b.length &&
  b.offset < a.offset + a.length;
