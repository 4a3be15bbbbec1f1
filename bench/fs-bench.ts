import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { removeTree, type Teardown } from '../test/support/scratch.js';
import { keepCpusAwake } from './awake-cpus.js';
import {
  type ContenderName,
  type ContenderOptions,
  IMAGE,
  missing,
  OTHER_BYTES,
  OTHER_IMAGE,
  type RunningContender,
  startContender,
} from './contender.js';
import { fsIsolationSection } from './fs-isolation-section.js';
import { fsMetadataSection } from './fs-metadata-section.js';
import { fsRowsSection } from './fs-rows-section.js';
import type { FsSection, FsSectionOptions } from './fs-section.js';
import { fillImage } from './image.js';
import { loadAverage } from './machine-load.js';
import { residentBytes } from './process-figures.js';
import { fixed } from './table.js';

export interface FsBenchOptions extends ContenderOptions, FsSectionOptions {
  /** Where images and mount points are made; on tmpfs, so that the page cache serves all contenders alike. */
  readonly dir: string;
  readonly contenders: readonly ContenderName[];
  /** Whether the CPUs are kept from halting. */
  readonly awake?: boolean;
  /** File for the raw data. */
  readonly json?: string;
}

const MB = 1e6;

const startAll = async (
  base: string,
  imageDir: string,
  options: FsBenchOptions,
  cleanup: Teardown,
): Promise<readonly RunningContender[]> => {
  const contenders: RunningContender[] = [];
  for (const name of options.contenders) {
    let reason = await missing(name, options);
    if (reason === null)
      try {
        const contender = await startContender(name, imageDir, join(base, name), options);
        cleanup.teardown(() => contender.stop());
        contenders.push(contender);
      } catch (error) {
        if (name === 'migratefs') throw error;
        reason = (error as Error).message;
      }
    if (reason !== null) console.log(`${name}: left out: ${reason}`);
  }
  return contenders;
};

/** `npm run bench -- fs`: the idle mount against its peers. A measurement of ours that fails makes it fail. */
export const benchFs = async (options: FsBenchOptions, cleanup: Teardown): Promise<void> => {
  const began = { at: new Date().toISOString(), loadAverage: loadAverage(), clock: performance.now() };
  const base = mkdtempSync(join(options.dir, 'mfs-bench-'));
  cleanup.teardown(() => removeTree(base));
  const imageDir = join(base, 'images');
  mkdirSync(imageDir);
  await fillImage(join(imageDir, IMAGE), options.size);
  await fillImage(join(imageDir, OTHER_IMAGE), OTHER_BYTES);
  const contenders = await startAll(base, imageDir, options, cleanup);
  const interruption = new AbortController();
  cleanup.teardown(() => interruption.abort());
  const pids = [
    ...contenders.flatMap(({ pid }) => pid ?? []),
    ...(options.awake ? await keepCpusAwake(cleanup) : []),
  ];
  const setting = { contenders, options, pids, signal: interruption.signal };
  console.log(`medians of ${options.rounds} rounds in turn, image of ${options.size / 2 ** 20} MiB`);
  console.log(
    `load average ${fixed(began.loadAverage, 1)} before, ${cpus().length} CPUs${options.awake ? ', kept from halting' : ''}`,
  );
  const sections: FsSection[] = [];
  for (const measureSection of [fsRowsSection, fsIsolationSection, fsMetadataSection]) {
    const section = await measureSection(setting);
    sections.push(section);
    if (section.text) console.log(`\n${section.text}`);
  }
  console.log('');
  const resident = contenders.flatMap(({ name, pid }) =>
    pid === null || !existsSync(`/proc/${pid}`) ? [] : { name, bytes: residentBytes(pid) },
  );
  for (const { name, bytes } of resident)
    console.log(`${name}: ${fixed(bytes / MB, 0)} MB resident at the end`);
  const failures = sections.flatMap((section) => section.failures);
  for (const failure of failures) console.log(failure);
  const missed = sections.reduce((sum, section) => sum + section.missed, 0);
  const minutes = (performance.now() - began.clock) / 60_000;
  console.log(
    `\n${missed} bars missed; ${fixed(minutes, 1)} minutes; load average ${fixed(loadAverage(), 1)} after`,
  );
  if (options.json !== undefined) {
    const machine = { cpus: cpus().map(({ model }) => model), kernel: release(), node: process.version };
    const samples = sections.flatMap((section) => section.samples);
    const data = { began, machine, options, missed, failures, resident, samples };
    writeFileSync(options.json, `${JSON.stringify(data, null, 1)}\n`);
  }
  if (failures.some((failure) => failure.startsWith('migratefs'))) process.exitCode = 1;
};
