/** What `scripts/demo` shows: a VM's two disks move between two daemons while they are written to. */
import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatTable } from '../../bench/table.js';
import type { MigrationSnapshot } from '../../src/leaves/migration.js';
import { MiB } from '../../src/leaves/units.js';
import { withCleanup } from '../support/cleanup.js';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import {
  addFile,
  type Contents,
  differingFiles,
  ext4Faults,
  makeExt4,
  makeFiles,
} from '../support/ext4-image.js';
import { allocatedBytes, makeSparseImage } from '../support/files.js';
import { Followed, type Pair, startPair } from '../support/pair.js';
import { Random, seedFromEnvironment } from '../support/random.js';
import { CLI } from '../support/run.js';
import { guardProcess, releaseProcess, scratchDir, type Teardown } from '../support/scratch.js';
import { type LoadShape, randomShape, shapeText, verifyPass, writePass } from '../support/verified-load.js';

const SYSTEM = 'system.ext4';
const SYSTEM_BYTES = 512 * MiB;
const SYSTEM_FILES = 300;
const FILE_BYTES_MAX = MiB / 2;
/** Milliseconds between two files that the guest adds. */
const ADD_INTERVAL = 250;
const DATA = 'data.raw';
const DATA_BYTES = 1024 * MiB;
/** Part of the data disk that fio writes; part that only has to be copied. The rest is a hole. */
const LOAD_BYTES = 64 * MiB;
const STILL_BYTES = 64 * MiB;
const NET_LIMIT = '80MB/s';
/** Bytes per second that the guest writes; a load at full speed would hide everything else on a small machine. */
const LOAD_RATE = 40 * MiB;
const PASSES_MAX = 200;

const colour = process.stdout.isTTY && !process.env['NO_COLOR'];
const paint = (code: number, text: string): string => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);
const say = (text: string): void => void process.stdout.write(`${text}\n`);
const step = (text: string): void => say(`\n${paint(1, text)}`);
const mib = (bytes: number): string => `${(bytes / MiB).toFixed(0)} MiB`;

/** Prints a proof and throws when it fails. */
const prove = (what: string, fault: string): void => {
  say(`  ${fault ? paint(31, 'FAIL') : paint(32, 'ok  ')} ${what}`);
  if (fault) throw new Error(`${what}: ${fault}`);
};

/** The guest: it adds files to the ext4 disk and writes fio passes to the data disk until it is told to pause. */
class Guest {
  readonly shapes: LoadShape[] = [];
  bytesWritten = 0;
  filesAdded = 0;
  readonly #stopping = new AbortController();
  readonly #passEnds = new EventEmitter();
  readonly #pair: Pair;
  readonly #random: Random;
  readonly #contents: Contents;
  readonly #scratch: string;
  #life: Promise<unknown> = Promise.resolve();

  constructor(pair: Pair, random: Random, contents: Contents, scratch: string) {
    this.#pair = pair;
    this.#random = random;
    this.#contents = contents;
    this.#scratch = scratch;
  }

  run(): void {
    this.#life = Promise.all([this.#writeData(), this.#addFiles()]);
    // It is awaited in `pause`.
    this.#life.catch(() => undefined);
  }

  /** Lets what is running end, and stops. Rejects with the first error the guest has seen. */
  async pause(): Promise<void> {
    this.#stopping.abort();
    await this.#life;
  }

  /** Resolves when a pass has ended that had not begun yet. */
  async wholePass(): Promise<void> {
    const two = once(this.#passEnds, 'end').then(() => once(this.#passEnds, 'end'));
    // An error of the guest ends its life early.
    await Promise.race([two, this.#life]);
  }

  async #writeData(): Promise<void> {
    while (!this.#stopping.signal.aborted && this.shapes.length < PASSES_MAX) {
      const shape = randomShape(this.#random, 0, LOAD_BYTES);
      const pass = await writePass(this.#pair.source.daemon.at(DATA), shape, { rate: LOAD_RATE });
      if (pass.complaint) throw new Error(`the guest saw an error: ${pass.complaint}`);
      this.shapes.push(shape);
      this.bytesWritten += pass.bytes;
      this.#passEnds.emit('end');
    }
  }

  async #addFiles(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      const bytes = Buffer.alloc(1 + this.#random.below(FILE_BYTES_MAX));
      this.#random.fill(bytes);
      const from = join(this.#scratch, 'new-file');
      writeFileSync(from, bytes);
      await addFile(this.#pair.source.daemon.at(SYSTEM), from, `added-${this.filesAdded}`, this.#contents);
      this.filesAdded++;
      await sleep(ADD_INTERVAL, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
    }
  }
}

/** Runs `migratefs migrate` as a user does, on this terminal, and follows it; resolves to it and its exit. */
const migrateOnTerminal = async (
  t: Teardown,
  pair: Pair,
): Promise<{ readonly migration: Followed; readonly exited: Promise<number | null> }> => {
  const args = ['migrate', SYSTEM, DATA, '--to', pair.target.daemon.dataAddress, '--net-limit', NET_LIMIT];
  say(`  $ migratefs ${args.join(' ')} --cutover on-first-write\n`);
  const child = spawn(
    process.execPath,
    [CLI, ...args, '--cutover', 'on-first-write', '--server', pair.source.daemon.controlAddress],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  guardProcess(child.pid!);
  const exited = once(child, 'exit').then(([code]) => {
    releaseProcess(child.pid!);
    return code as number | null;
  });
  const stop = new AbortController();
  t.teardown(() => stop.abort());
  const failed = exited.then((code): never => {
    throw new Error(`migratefs migrate ended with ${code}`);
  });
  failed.catch(() => undefined);
  const seen = (async (): Promise<MigrationSnapshot> => {
    for await (const snapshot of pair.source.client.watch('', stop.signal)) return snapshot;
    throw new Error('no migration was started');
  })();
  seen.catch(() => undefined);
  const first = await Promise.race([seen, failed]);
  return { migration: new Followed(t, pair.source.client, first), exited };
};

interface Figures {
  readonly copySeconds: number;
  readonly totalSeconds: number;
  readonly firstWriteMillis: number;
  readonly last: MigrationSnapshot;
}

const moveVm = async (t: Teardown, pair: Pair, guest: Guest): Promise<Figures> => {
  step('3. Migrate, while the guest goes on writing');
  const began = performance.now();
  const { migration, exited } = await migrateOnTerminal(t, pair);
  await migration.reaches('mirroring', 120_000);
  const inSync = performance.now();
  // Some more life in sync: every write reaches both disks before the guest hears of it.
  await guest.wholePass();
  await guest.pause();
  const firstWriteMillis = await rewriteBlock(
    pair.source.daemon.below(DATA),
    pair.target.daemon.at(DATA),
    LOAD_BYTES,
  );
  const ended = performance.now();
  const code = await exited;
  if (code !== 0) throw new Error(`migratefs migrate ended with ${code}`);
  const last = await migration.reaches('completed');
  return {
    copySeconds: (inSync - began) / 1000,
    totalSeconds: (ended - began) / 1000,
    firstWriteMillis,
    last,
  };
};

const proofs = async (pair: Pair, guest: Guest, contents: Contents, scratch: string): Promise<void> => {
  const { source, target } = pair;
  step('4. Prove it');
  for (const image of [SYSTEM, DATA])
    prove(
      `${image}: source and target are identical, byte for byte, at the cutover`,
      (await identical(source.daemon.below(image), target.daemon.below(image))) ? '' : 'they differ',
    );
  for (const image of [SYSTEM, DATA])
    prove(
      `${image}: the target allocates ${mib(allocatedBytes(target.daemon.below(image)))}, the source ${mib(allocatedBytes(source.daemon.below(image)))}`,
      allocatedBytes(target.daemon.below(image)) <= allocatedBytes(source.daemon.below(image)) * 1.02
        ? ''
        : 'more than the source',
    );
  prove('e2fsck -fn on the target: clean', await ext4Faults(target.daemon.at(SYSTEM)));
  const differing = await differingFiles(target.daemon.at(SYSTEM), join(scratch, 'rescued'), contents);
  prove(
    `all ${contents.size} files of the ext4 disk are there, ${guest.filesAdded} of them written during the migration`,
    differing.slice(0, 5).join(', '),
  );
  const shape = guest.shapes.at(-1)!;
  const checked = await verifyPass(target.daemon.at(DATA), shape);
  prove(
    `fio --verify_only on the target: ${mib(checked.bytes)} that the guest wrote at the source`,
    checked.complaint,
  );
  const onward = await writePass(target.daemon.at(DATA), { ...shape, seed: shape.seed + 1 });
  prove(`the guest goes on at the target: fio writes and verifies ${mib(onward.bytes)}`, onward.complaint);
  for (const image of [SYSTEM, DATA]) {
    const refusal = await writeRefusal(source.daemon.at(image));
    prove(`${image}: the source refuses writes (EROFS)`, refusal === 'EROFS' ? '' : refusal || 'it took one');
  }
};

const figuresTable = (figures: Figures, guest: Guest): string => {
  const { last } = figures;
  const rows = [
    ['copied until in sync', `${figures.copySeconds.toFixed(1)} s`],
    ['from start to cutover', `${figures.totalSeconds.toFixed(1)} s`],
    ['stall of the first write on the target', `${figures.firstWriteMillis.toFixed(1)} ms`],
    ['allocated when it began', mib(last.bytesTotal)],
    ['sent', mib(last.bytesSent)],
    ['of that resent because overwritten', mib(last.bytesResent)],
    ['of that mirrored synchronously', mib(last.bytesMirrored)],
    ['written by the guest meanwhile', `${mib(guest.bytesWritten)} in ${guest.shapes.length} fio passes`],
    ['files added to ext4 meanwhile', String(guest.filesAdded)],
  ];
  return formatTable(['figure', 'value'], rows);
};

const demo = async (t: Teardown): Promise<void> => {
  const began = performance.now();
  const seed = seedFromEnvironment();
  const random = new Random(seed);
  const scratch = scratchDir(t, 'demo');
  step('1. Make the disks of a VM');
  const folder = join(scratch, 'files');
  mkdirSync(folder);
  const contents = makeFiles(folder, SYSTEM_FILES, FILE_BYTES_MAX, random);
  const pair = await startPair(t);
  await makeExt4(pair.source.daemon.below(SYSTEM), SYSTEM_BYTES, folder);
  makeSparseImage(
    pair.source.daemon.below(DATA),
    DATA_BYTES,
    [{ offset: LOAD_BYTES, length: STILL_BYTES }],
    random.next(),
  );
  for (const image of [SYSTEM, DATA])
    say(
      `  ${image}: ${mib(SYSTEM === image ? SYSTEM_BYTES : DATA_BYTES)}, ${mib(allocatedBytes(pair.source.daemon.below(image)))} allocated`,
    );
  say(`  ext4 with ${contents.size} files; seed ${seed}`);
  step('2. Two hosts, each with a mount; the guest runs at the source');
  for (const { daemon } of [pair.source, pair.target])
    say(`  ${daemon.imageDir} at ${daemon.mountpoint}, data port ${daemon.dataAddress}`);
  const guest = new Guest(pair, random, contents, scratch);
  guest.run();
  await guest.wholePass();
  say(`  fio on ${DATA}: ${guest.shapes.map(shapeText).join('; ')}`);
  const figures = await moveVm(t, pair, guest);
  await proofs(pair, guest, contents, scratch);
  step('5. In figures');
  say(formatIndented(figuresTable(figures, guest)));
  await pair.source.daemon.stop();
  await pair.target.daemon.stop();
  step(`Done in ${((performance.now() - began) / 1000).toFixed(0)} s: nothing was lost.`);
};

const formatIndented = (text: string): string => text.replace(/^/gm, '  ');

try {
  await withCleanup(demo);
} catch (error) {
  process.stderr.write(`
demo: ${(error as Error).message}
`);
  process.exitCode = 1;
}
