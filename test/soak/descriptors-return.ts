import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { runOk } from '../support/run.js';
import type { TestDaemon } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';
import { type ProcessSample, sampleProcess } from './process-sample.js';

/** Has the kernel drop every inode of this mount that nobody holds: remounting shrinks the caches of one file system. */
export const dropInodes = async (mountpoint: string): Promise<void> => {
  await runOk('mount', ['-i', '-o', 'remount', mountpoint]);
};

/** Drops inodes and waits until the daemon holds no more descriptors than it did; what it holds then, or in the end. */
export const descriptorsReturn = async (
  daemon: TestDaemon,
  before: ProcessSample,
  milliseconds?: number,
): Promise<ProcessSample> => {
  await dropInodes(daemon.mountpoint);
  const back = async (): Promise<boolean> => {
    // Workers that were added for the load hold descriptors of their own; each ends after a last request.
    await access(join(daemon.mountpoint, `absent-${Math.random()}`)).catch(() => undefined);
    const { opened, nodes } = sampleProcess(daemon.pid);
    return opened <= before.opened && nodes <= before.nodes;
  };
  // Late or never: the caller compares.
  await waitFor(back, 'descriptors return', milliseconds).catch(() => undefined);
  return sampleProcess(daemon.pid);
};
