/** What the sections of the migration benchmark share. */
import { existsSync, statSync } from 'node:fs';
import { Cleanup } from '../test/support/cleanup.js';
import { type Followed, migrate, type Pair, type StartSettings } from '../test/support/pair.js';
import { waitFor } from '../test/support/wait-for.js';
import type { Verdict } from './table.js';
import { WarmMemory } from './warm-memory.js';

export interface MigrateBenchOptions {
  readonly rounds: number;
  /** Seconds of one fio measurement. */
  readonly seconds: number;
  /** Bytes of the image. */
  readonly size: number;
  /** Where images are made; on tmpfs, so that no disk takes part. */
  readonly dir: string;
  readonly only: string;
  /** Keeps the CPUs from halting. */
  readonly awake?: boolean;
}

/** A line of the report. */
export interface Line {
  readonly what: string;
  readonly value: string;
  readonly verdict?: Verdict;
}

export interface Setting {
  readonly pair: Pair;
  /** For files beside the daemons' own. */
  readonly folder: string;
  readonly options: MigrateBenchOptions;
}

export const IMAGE = 'image.raw';
export const MB = 1e6;
export const SYNC_MAX_MS = 300_000;

/** Has the machine's host give the memory for a copy of the file `image` before anyone is measured making one. */
export const warmFor = async ({ options }: Setting, image: string): Promise<void> => {
  using _ = await WarmMemory.hold(options.dir, statSync(image).blocks * 512);
};

/** Migrates `image` for as long as `work` takes, then cancels and waits until the replica is gone. */
export const whileMigrating = async <T>(
  { pair }: Setting,
  settings: StartSettings,
  work: (migration: Followed) => Promise<T>,
  image = IMAGE,
): Promise<T> => {
  const cleanup = new Cleanup();
  const migration = await migrate(cleanup, pair, [image], { cutover: 'explicit', ...settings });
  const result = await work(migration);
  await pair.source.client.cancel(migration.id);
  await waitFor(() => !existsSync(pair.target.daemon.below(image)), 'the replica is removed');
  await cleanup.run();
  return result;
};
