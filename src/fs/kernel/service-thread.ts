import type { Transferable } from 'node:worker_threads';
import { Worker } from 'node:worker_threads';
import type { FromThread } from './thread-messages.js';

/**
 * MB. What dies young is collected often and soon instead of seldom: V8 lets it grow to 48 MB in each thread, which a
 * thread that serves requests reaches within minutes and never gives back.
 */
const YOUNG_GENERATION_MAX = 3;

/** A thread of the mount. */
export interface ServiceThread {
  readonly ready: Promise<void>;
  /** Resolves when it has returned, and rejects when it has crashed. */
  readonly ended: Promise<void>;
  post(message: unknown, transfer?: readonly Transferable[]): void;
  /** It may be left behind in a call that does not return; see `exitNow`. */
  unref(): void;
}

export const startThread = (
  file: string,
  setup: object,
  transfer: readonly Transferable[],
  onMessage: (message: Exclude<FromThread, { type: 'ready' }>) => void,
): ServiceThread => {
  const worker = new Worker(new URL(file, import.meta.url), {
    workerData: setup,
    transferList: [...transfer],
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MAX },
  });
  const ended = new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`${file} exited with ${code}`));
    });
  });
  const ready = new Promise<void>((resolve, reject) => {
    worker.on('message', (message: FromThread) => {
      if (message.type === 'ready') resolve();
      else onMessage(message);
    });
    ended.then(() => reject(new Error(`${file} ended early`)), reject);
  });
  ready.catch(() => {}); // reported through `ended`
  return {
    ready,
    ended,
    post: (message, list = []) => worker.postMessage(message, list),
    unref: () => worker.unref(),
  };
};
