/** Waiting for what announces itself to nobody: a file that another process removes, a counter. */
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;
const WAIT_MAX_MS = 20_000;

/** Resolves once `truth` holds; rejects naming `what` when that takes too long. */
export const waitFor = async (
  truth: () => boolean | Promise<boolean>,
  what: string,
  milliseconds = WAIT_MAX_MS,
): Promise<void> => {
  const deadline = performance.now() + milliseconds;
  while (!(await truth())) {
    if (performance.now() > deadline) throw new Error(`not within ${milliseconds} ms: ${what}`);
    await sleep(POLL_MS);
  }
};
