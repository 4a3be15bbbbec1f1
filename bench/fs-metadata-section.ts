import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { type FsSection, type FsSetting, failureLines, labelled } from './fs-section.js';
import { loadAverage, watchOthers } from './machine-load.js';
import { measureRounds } from './rounds.js';
import { median } from './statistics.js';
import { fixed, formatTable } from './table.js';

const NAME = 'metadata';
const READDIRS = 5;
const STEPS = ['create', 'open+close', 'stat', 'readdir', 'rename', 'unlink'] as const;

type Rates = Readonly<Record<(typeof STEPS)[number] | 'others', number>>;

/** What a folder of `files` fresh files goes through; files per second of each step. */
const metadataRates = (folder: string, files: number, pids: readonly number[]): Rates => {
  const others = watchOthers(pids);
  mkdirSync(folder);
  try {
    const timed = (operations: number, work: () => void): number => {
      const start = performance.now();
      work();
      return operations / ((performance.now() - start) / 1000);
    };
    const each = (operation: (name: string) => void): number =>
      timed(files, () => {
        for (let file = 0; file < files; file++) operation(join(folder, `file-${file}`));
      });
    const listAll = (): void => {
      for (let time = 0; time < READDIRS; time++)
        if (readdirSync(folder).length !== files) throw new Error(`${folder} does not list its files`);
    };
    return {
      create: each((path) => closeSync(openSync(path, 'wx'))),
      'open+close': each((path) => closeSync(openSync(path, 'r'))),
      stat: each((path) => void statSync(path)),
      readdir: timed(files * READDIRS, listAll),
      rename: each((path) => renameSync(path, `${path}-renamed`)),
      unlink: each((path) => unlinkSync(`${path}-renamed`)),
      others: others(),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

/** Operations on names; whoever serves one image only has no such rates. */
export const fsMetadataSection = async ({
  contenders,
  options,
  pids,
  signal,
}: FsSetting): Promise<FsSection> => {
  if (options.files === 0 || !NAME.includes(options.only))
    return { text: '', missed: 0, failures: [], samples: [] };
  process.stderr.write(`${NAME} ...\n`);
  const withFolders = contenders.flatMap(({ name, folder }) => (folder === null ? [] : { name, folder }));
  const { samples, failures } = await measureRounds(
    withFolders,
    options.rounds,
    ({ name, folder }) => metadataRates(join(folder, `${NAME}-${name}`), options.files, pids),
    signal,
  );
  const lines = contenders.map(({ name }) => {
    const middle = (key: keyof Rates): number => median((samples.get(name) ?? []).map((rates) => rates[key]));
    return [name, ...STEPS.map((step) => fixed(middle(step), 0)), fixed(middle('others'), 2)];
  });
  const text = [
    formatTable([`${NAME}, ${options.files} files`, ...STEPS.map((step) => `${step}/s`), 'others'], lines),
    `One process, one after the other; readdir: names listed. Load average ${fixed(loadAverage(), 1)}.`,
  ].join('\n');
  return { text, missed: 0, failures: failureLines(NAME, failures), samples: labelled(NAME, samples) };
};
