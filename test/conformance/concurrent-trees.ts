/** Several processes that change trees at once, and what must be true of the trees afterwards. */
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../support/run.js';
import type { TestDaemon } from '../support/test-daemon.js';
import { tornBlock } from './shared-tree.js';

const PROCESS = fileURLToPath(new URL('./tree-process.js', import.meta.url));
const RUN_MAX_MS = 600_000;
const SHARED = 'shared';

/** What a process is told to do. */
export interface TreeOrders {
  readonly privateFolder: string;
  readonly privateBacking: string;
  readonly sharedFolder: string;
  readonly seed: number;
  readonly stamp: number;
  readonly operations: number;
  readonly links: boolean;
  readonly holes: boolean;
}

export interface TreeReport {
  /** How often the shared tree gave each answer. */
  readonly answers: Readonly<Record<string, number>>;
}

export interface ConcurrentTreesOptions {
  readonly processes: number;
  /** Of each process, in each of its two trees. */
  readonly operations: number;
  readonly seed: number;
  /** A name that this daemon has not seen. */
  readonly folder: string;
}

/** Everything of lstat(2) that both sides must agree on, but for what reading changes. */
const attributes = (path: string): string => {
  const s = lstatSync(path, { bigint: true });
  return `inode ${s.ino} mode ${s.mode.toString(8)} links ${s.nlink} owner ${s.uid}:${s.gid} size ${s.size} blocks ${s.blocks} modified ${s.mtimeNs} changed ${s.ctimeNs}`;
};

/** What differs between a tree through the mount and in the backing folder: names, contents, `also` of their paths. */
const differences = (mount: string, backing: string, also: (path: string) => string): string[] => {
  const names = [mount, backing].map((folder) => readdirSync(folder).sort());
  if (names[0]!.join('/') !== names[1]!.join('/'))
    return [`${mount} lists ${names[0]} instead of ${names[1]}`];
  return names[0]!.flatMap((name) => {
    const [through, below] = [join(mount, name), join(backing, name)];
    if (also(through) !== also(below)) return [`${through}: ${also(through)} instead of ${also(below)}`];
    const found = lstatSync(below);
    if (found.isDirectory()) return differences(through, below, also);
    if (found.isSymbolicLink())
      return readlinkSync(through) === readlinkSync(below) ? [] : [`${through}: another target`];
    return readFileSync(through).equals(readFileSync(below)) ? [] : [`${through}: other contents`];
  });
};

const tornBlocks = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return tornBlocks(path);
    const fault = entry.isFile() ? tornBlock(path) : '';
    return fault ? [fault] : [];
  });

/** Resolves to what was found wrong, and to how often each answer came in the shared tree. */
export const concurrentTrees = async (
  daemon: TestDaemon,
  { processes, operations, seed, folder }: ConcurrentTreesOptions,
): Promise<{ readonly faults: readonly string[]; readonly answers: Readonly<Record<string, number>> }> => {
  const own = daemon.transport === 'kernel';
  mkdirSync(daemon.at(`${folder}/${SHARED}`), { recursive: true });
  const orders = Array.from({ length: processes }, (_, i): TreeOrders => {
    const name = `${folder}/private-${i}`;
    mkdirSync(daemon.at(name));
    return {
      privateFolder: daemon.at(name),
      privateBacking: daemon.below(name),
      sharedFolder: daemon.at(`${folder}/${SHARED}`),
      seed: seed + i,
      stamp: i + 1,
      operations,
      // libfuse 2 has neither; docs/TRANSPORTS.md.
      links: own,
      holes: own,
    };
  });
  const results = await Promise.all(
    orders.map((order) => run(process.execPath, [PROCESS, JSON.stringify(order)], { timeout: RUN_MAX_MS })),
  );
  const faults: string[] = [];
  const answers: Record<string, number> = {};
  results.forEach(({ code, signal, stdout, stderr }, i) => {
    if (code !== 0) {
      faults.push(`process ${i} (seed ${seed + i}): ${signal ?? ''} ${stdout}${stderr}`);
      return;
    }
    for (const [answer, count] of Object.entries((JSON.parse(stdout) as TreeReport).answers))
      answers[answer] = (answers[answer] ?? 0) + count;
  });
  faults.push(
    ...differences(daemon.at(folder), daemon.below(folder), own ? attributes : () => ''),
    ...tornBlocks(daemon.below(`${folder}/${SHARED}`)),
  );
  return { faults, answers };
};
