/** `npm run bench -- vm`: the same guest moved by MigrateFS, by QEMU alone, and with shared storage, in turn. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Cleanup } from '../test/support/cleanup.js';
import { runOk } from '../test/support/run.js';
import type { Teardown } from '../test/support/scratch.js';
import { keepCpusAwake } from './awake-cpus.js';
import { loadAverage } from './machine-load.js';
import { inTurn } from './rounds.js';
import { median } from './statistics.js';
import { fixed, formatTable } from './table.js';
import { DiskPattern } from './vm-disk.js';
import { moveVm, type VmMove, type VmMoveOptions } from './vm-move.js';
import type { MoverName } from './vm-movers.js';

export interface VmBenchOptions extends VmMoveOptions {
  readonly rounds: number;
  readonly who: readonly MoverName[];
  /** Tells the records of this run from others. */
  readonly seed: number;
  /** Keeps the CPUs from halting. */
  readonly awake?: boolean;
}

const BUILD_GUEST = fileURLToPath(new URL('../../scripts/lib/build-guest', import.meta.url));
const PEER = 'blockdev-mirror';
const MB = 1e6;

interface Row {
  readonly what: string;
  readonly digits: number;
  readonly value: (move: VmMove) => number;
  /** What is better; absent: information. */
  readonly better?: 'less' | 'more';
  /** Of ours: at least, absolutely. */
  readonly floor?: number;
  /** Of ours: at most so much above shared storage. */
  readonly aboveShared?: number;
}

const ROWS: readonly Row[] = [
  { what: 'move: copy + hand-over, s', digits: 2, value: (m) => m.copy + m.handOver, better: 'less' },
  { what: 'copy until in sync, s', digits: 2, value: (m) => m.copy, better: 'less' },
  { what: 'hand-over until the first record on the target, s', digits: 2, value: (m) => m.handOver },
  { what: 'guest before, MB/s', digits: 1, value: (m) => m.before / MB },
  {
    what: 'guest during the copy, of before',
    ...{ digits: 2, value: (m: VmMove) => m.copying / m.before, better: 'more', floor: 0.8 },
  },
  {
    what: 'guest in sync, of before',
    ...{ digits: 2, value: (m: VmMove) => m.inSync / m.before, better: 'more', floor: 0.5 },
  },
  {
    what: 'downtime: no record of the guest, ms',
    ...{ digits: 0, value: (m: VmMove) => m.downtime, better: 'less', aboveShared: 10 },
  },
  { what: 'downtime that QEMU claims, ms', digits: 0, value: (m) => m.claimed },
  { what: 'on the wire, MB', digits: 0, value: (m) => m.wire / MB, better: 'less' },
  {
    what: 'beyond the disk, bytes for each that the guest wrote in the copy',
    digits: 2,
    value: (m) => m.extra,
  },
];

type Moves = ReadonlyMap<MoverName, readonly VmMove[]>;

const middle = (moves: Moves, name: MoverName, { value }: Row): number =>
  median((moves.get(name) ?? []).map(value));

/** The bars of a row, and whether each held. */
const barsOf = (moves: Moves, row: Row): readonly (readonly [string, boolean])[] => {
  const [ours, peer, shared] = [
    middle(moves, 'migratefs', row),
    middle(moves, PEER, row),
    middle(moves, 'shared', row),
  ];
  const bars: [string, boolean][] = [];
  if (row.better === 'less' && Number.isFinite(ours - peer)) bars.push(['<= peer', ours <= peer]);
  if (row.better === 'more' && Number.isFinite(ours - peer)) bars.push(['>= peer', ours >= peer]);
  if (row.floor !== undefined && Number.isFinite(ours)) bars.push([`>= ${row.floor}`, ours >= row.floor]);
  if (row.aboveShared !== undefined && Number.isFinite(ours - shared))
    bars.push([`<= shared + ${row.aboveShared}`, ours <= shared + row.aboveShared]);
  return bars;
};

const cell = (moves: Moves, name: MoverName, row: Row): string => {
  const values = (moves.get(name) ?? []).map(row.value);
  if (values.length === 0) return '-';
  const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => fixed(value, row.digits));
  return `${fixed(median(values), row.digits)} (${least} to ${most})`;
};

const report = (moves: Moves, options: VmBenchOptions): number => {
  const bars = ROWS.map((row) => barsOf(moves, row));
  console.log(
    `disk of ${options.size / 2 ** 20} MiB in ${options.dir}, cache=none, guest wants ${options.rate / MB} MB/s of 4 KiB ` +
      `records, a flush each ${options.flush}; medians of ${options.rounds} rounds (least to most), load average ` +
      `${fixed(loadAverage(), 1)}${options.awake ? ', CPUs kept from halting' : ''}\n`,
  );
  console.log(
    formatTable(
      ['what', ...options.who, 'bars'],
      ROWS.map((row, index) => [
        row.what,
        ...options.who.map((name) => cell(moves, name, row)),
        bars[index]!.map(([text, held]) => `${text} ${held ? 'pass' : 'MISS'}`).join(', '),
      ]),
    ),
  );
  return bars.flat().filter(([, held]) => !held).length;
};

/** Resolves to the number of bars missed; a move that lost something counts too. */
export const benchVm = async (options: VmBenchOptions, t: Teardown): Promise<number> => {
  await runOk(BUILD_GUEST, []);
  if (options.awake) await keepCpusAwake(t);
  const folder = mkdtempSync(join(options.dir, 'mfs-vm-master-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const master = { path: join(folder, 'disk.raw'), pattern: new DiskPattern() };
  await master.pattern.write(master.path, options.size);
  const moves = new Map<MoverName, VmMove[]>(options.who.map((name) => [name, []]));
  let wrong = 0;
  let run = options.seed;
  for (let round = 0; round < options.rounds; round++)
    for (const name of inTurn(options.who, round)) {
      const cleanup = new Cleanup();
      t.teardown(() => cleanup.run());
      try {
        const move = await moveVm(cleanup, name, master, options, run++);
        moves.get(name)!.push(move);
        if (move.faults.length > 0) wrong += 1;
        for (const fault of move.faults) console.log(`WRONG ${name}: ${fault}`);
        process.stderr.write(
          `${name}: ${ROWS.map((row) => `${row.what.split(/[:,]/)[0]} ${fixed(row.value(move), row.digits)}`).join('; ')}\n`,
        );
      } catch (error) {
        wrong += 1;
        console.log(`FAILED ${name}: ${(error as Error).message}`);
      } finally {
        await cleanup.run();
      }
    }
  const missed = report(moves, options);
  console.log(`\n${missed} bars missed, ${wrong} of ${options.rounds * options.who.length} moves went wrong`);
  return missed + wrong;
};
