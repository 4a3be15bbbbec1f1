/** The parts of the long suite. Each tells of its progress, and answers what it has found wrong. */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { MiB } from '../../src/leaves/units.js';
import { scratchDir, type Teardown } from '../support/scratch.js';
import type { TestDaemon } from '../support/test-daemon.js';
import { concurrentTrees } from './concurrent-trees.js';
import { FIO_PASSES, fioPassName, fioVerify } from './fio-verify.js';
import { type FileAccess, RandomFile } from './random-file.js';
import { LEFT_OUT, runStressor, STRESSORS } from './stressors.js';

export interface SectionContext {
  readonly t: Teardown;
  readonly daemon: TestDaemon;
  readonly seed: number;
  /** Share of the full size, in percent. */
  readonly percent: number;
  /** Names of the steps that are wanted; empty: all. */
  readonly only: readonly string[];
  readonly say: (line: string) => void;
}

/** Resolves to one text a fault. */
export type Section = (context: SectionContext) => Promise<readonly string[]>;

const FILE_OPERATIONS = 80_000;
const CHUNK_OPERATIONS = 2000;
const TREE_PROCESSES = 4;
const TREE_OPERATIONS = 8000;
const TREE_ROUNDS = 3;
const FIO_BYTES = 64 * MiB;
const STRESSOR_SECONDS = 3;
/** What fuse-native gets of the counts above: it answers several times slower. */
const PORTABLE_PERCENT = 10;

interface FileConfiguration {
  readonly access: FileAccess;
  readonly mapped: boolean;
}

const FILE_CONFIGURATIONS: readonly FileConfiguration[] = (
  ['buffered', 'direct', 'both', 'sync'] as const
).flatMap((access) => [false, true].map((mapped) => ({ access, mapped })));
const FILE_SEEDS = 2;

const scaled = (count: number, { daemon, percent }: SectionContext): number =>
  Math.max(
    1,
    Math.round((count * percent * (daemon.transport === 'kernel' ? 100 : PORTABLE_PERCENT)) / 10_000),
  );

/** Runs the steps that are wanted one after the other, with a line for each. */
const steps = async (
  { only, say }: SectionContext,
  all: readonly { readonly name: string; readonly body: () => Promise<string> }[],
): Promise<readonly string[]> => {
  const faults: string[] = [];
  const wanted = all.filter(({ name }) => only.length === 0 || only.some((part) => name.includes(part)));
  for (const [index, { name, body }] of wanted.entries()) {
    const began = performance.now();
    let outcome: string;
    try {
      outcome = await body();
    } catch (error) {
      outcome = `FAIL ${(error as Error).message}`;
    }
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    say(`${index + 1}/${wanted.length} ${name}: ${outcome} (${seconds} s)`);
    if (outcome.startsWith('FAIL')) faults.push(`${name}: ${outcome}`);
  }
  return faults;
};

const files: Section = (context) => {
  const { daemon, seed } = context;
  const operations = scaled(FILE_OPERATIONS, context);
  return steps(
    context,
    FILE_CONFIGURATIONS.flatMap(({ access, mapped }, configuration) =>
      Array.from({ length: FILE_SEEDS }, (_, i) => {
        const own = seed + configuration * FILE_SEEDS + i;
        const name = `file-${own}`;
        return {
          name: `${operations} operations, ${access}${mapped ? ', mapped' : ''}, seed ${own}`,
          body: async () => {
            const file = new RandomFile({
              path: daemon.at(name),
              backing: daemon.below(name),
              seed: own,
              operations,
              access,
              mapped,
              holes: daemon.transport === 'kernel',
            });
            try {
              for (let done = 0; done < operations; done += CHUNK_OPERATIONS) {
                file.run(Math.min(CHUNK_OPERATIONS, operations - done));
                // The calls are synchronous: this is where a signal gets its turn.
                await setImmediate();
              }
              file.finish();
            } finally {
              file.close();
            }
            rmSync(daemon.at(name));
            return 'ok';
          },
        };
      }),
    ),
  );
};

const trees: Section = (context) => {
  const { daemon, seed } = context;
  const operations = scaled(TREE_OPERATIONS, context);
  return steps(
    context,
    Array.from({ length: TREE_ROUNDS }, (_, round) => {
      const own = seed + round * TREE_PROCESSES;
      const folder = `trees-${round}`;
      return {
        name: `${TREE_PROCESSES} processes, ${operations} operations each in two trees, seed ${own}`,
        body: async () => {
          const { faults, answers } = await concurrentTrees(daemon, {
            processes: TREE_PROCESSES,
            operations,
            seed: own,
            folder,
          });
          if (faults.length > 0) return `FAIL ${faults.slice(0, 10).join('\n')}`;
          rmSync(daemon.at(folder), { recursive: true });
          const counts = Object.entries(answers).map(([answer, count]) => `${answer} ${count}`);
          return `ok, shared: ${counts.join(', ')}`;
        },
      };
    }),
  );
};

const fio: Section = (context) => {
  const { daemon, seed } = context;
  return steps(
    context,
    FIO_PASSES.map((pass, i) => ({
      name: fioPassName(pass),
      body: async () => {
        const file = daemon.at(`fio-${i}`);
        const complaint = await fioVerify(
          file,
          pass,
          Math.max(8 * MiB, scaled(FIO_BYTES, context)),
          seed + i,
        );
        if (complaint) return `FAIL ${complaint}`;
        rmSync(file);
        return 'ok';
      },
    })),
  );
};

const stress: Section = (context) => {
  const { t, daemon, seed } = context;
  const seconds = Math.max(1, Math.round((STRESSOR_SECONDS * context.percent) / 100));
  const plain = scratchDir(t, 'plain');
  for (const [name, reason] of Object.entries(LEFT_OUT)) context.say(`left out: ${name}: ${reason}`);
  return steps(
    context,
    Object.keys(STRESSORS).map((name) => ({
      name,
      body: async () => {
        const folder = daemon.at(`stress-${name}`);
        mkdirSync(folder);
        const through = await runStressor({ name, folder, seconds, seed });
        if (through.kind === 'passed') {
          rmSync(folder, { recursive: true });
          return 'ok';
        }
        // What does the same on the file system below is not the mount's doing.
        const below = join(plain, name);
        mkdirSync(below);
        const elsewhere = await runStressor({ name, folder: below, seconds, seed });
        if (elsewhere.kind === through.kind) return `${through.kind}, in a plain folder too: ${through.said}`;
        return `FAIL ${through.kind}, but not in a plain folder: ${through.said}`;
      },
    })),
  );
};

export const SECTIONS: Readonly<Record<string, Section>> = { files, trees, fio, stress };
