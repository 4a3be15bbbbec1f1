/** The lanes of the endurance run: each works in its own folder of the mount, checks what it reads, and leaves nothing. */
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import {
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runFioOk } from '../support/fio.js';
import { Random } from '../support/random.js';
import { exerciseFile } from './file-exercise.js';

const KIB = 1024;
const MIB = 1024 * KIB;

export interface LaneContext {
  /** A folder of the lane's own, through the mount. */
  readonly folder: string;
  readonly random: Random;
  /** Ends the lane after the turn it is in. */
  readonly signal: AbortSignal;
  readonly count: (what: string, times: number) => void;
}

/** One turn of a lane: begins and ends with an empty folder. Throws when the mount answers wrongly. */
type Turn = (context: LaneContext) => Promise<void>;

const FIO_BYTES = 24 * MIB;
/** Bytes per second: leaves the machine to the other lanes. */
const FIO_RATE = '12m';
const FIO_SHAPES = [
  { ioengine: 'psync', direct: 1 },
  { ioengine: 'psync', direct: 0 },
  { ioengine: 'libaio', iodepth: 8, direct: 1 },
  { ioengine: 'mmap', direct: 0 },
] as const;

/** Random writes and reads of what was written, every block with its checksum, over the whole file twice. */
const blocks: Turn = async ({ folder, random, count }) => {
  const filename = join(folder, 'blocks.raw');
  const shape = random.pick(FIO_SHAPES);
  const [job] = await runFioOk({
    filename,
    rw: 'randwrite',
    bs: random.pick(['4k', '16k', '64k']),
    size: FIO_BYTES,
    ...shape,
    rate: `${FIO_RATE},${FIO_RATE}`,
    loops: 2,
    verify: 'crc32c',
    verify_fatal: 1,
    verify_backlog: 64,
    randseed: random.below(1_000_000) + 1,
    fallocate: random.pick(['none', 'native', 'truncate']),
    thread: true,
  });
  count(`fio ${shape.ioengine}`, job!.read.total_ios + job!.write.total_ios);
  await unlink(filename);
};

const TREE_FOLDERS = 12;
const TREE_FILES = 80;

/** Makes a tree, walks it, renames files and folders, and removes it. */
const trees: Turn = async ({ folder, random, count }) => {
  const root = join(folder, 'tree');
  for (let d = 0; d < TREE_FOLDERS; d++) {
    const inner = join(root, `d${d}`);
    await mkdir(inner, { recursive: true });
    const files = Array.from({ length: TREE_FILES }, (_, f) => writeFile(join(inner, `f${f}`), `${d}/${f}`));
    await Promise.all(files);
    await symlink('f0', join(inner, 'link'));
    count('files made', TREE_FILES);
  }
  for (let d = 0; d < TREE_FOLDERS; d++) {
    const moved = join(root, `moved${d}`);
    await rename(join(root, `d${d}`), moved);
    const f = random.below(TREE_FILES);
    await rename(join(moved, `f${f}`), join(root, `from${d}`));
    const text = await readFile(join(root, `from${d}`), 'utf8');
    if (text !== `${d}/${f}`) throw new Error(`renamed file ${d}/${f} holds ${text}`);
  }
  const names = await readdir(root, { recursive: true });
  const wanted = TREE_FOLDERS * (TREE_FILES + 2);
  if (names.length !== wanted) throw new Error(`${names.length} names in the tree, ${wanted} are there`);
  const looked = names.filter(() => random.chance(50));
  await Promise.all(looked.map((name) => lstat(join(root, name))));
  count('names listed', names.length);
  await rm(root, { recursive: true });
};

const BASE_BYTES = 2 * MIB;
const READERS = 24;

/** Many read-only handles of one file at once, as qcow2 base images have; then a writer, and readers beside it. */
const readers: Turn = async ({ folder, random, count }) => {
  const path = join(folder, 'base.raw');
  const content = Buffer.alloc(BASE_BYTES);
  random.fill(content);
  await writeFile(path, content);
  const digest = createHash('sha256').update(content).digest('hex');
  const handles = await Promise.all(Array.from({ length: READERS }, () => open(path, 'r')));
  try {
    await Promise.all(
      handles.map(async (handle) => {
        const read = createHash('sha256').update(await handle.readFile());
        if (read.digest('hex') !== digest) throw new Error('a read-only handle reads other bytes');
      }),
    );
    await using writer = await open(path, 'r+');
    await writer.write('changed', 0);
    const first = await handles[0]!.read(Buffer.alloc(7), 0, 7, 0);
    if (first.buffer.toString() !== 'changed') throw new Error('a read-only handle does not see a write');
  } finally {
    await Promise.all(handles.map((handle) => handle.close()));
  }
  count('read-only opens', READERS);
  await unlink(path);
};

const OPENS = 400;
const OPENS_AT_ONCE = 8;

/** Opens and closes one file again and again, for reading and for writing; some handles outlive the name. */
const opens: Turn = async ({ folder, random, count }) => {
  const path = join(folder, 'often');
  await writeFile(path, 'often');
  const openOnce = async (): Promise<void> => {
    await using handle = await open(path, random.pick(['r', 'r+', 'a']));
    await handle.stat();
  };
  for (let i = 0; i < OPENS; i += OPENS_AT_ONCE)
    await Promise.all(Array.from({ length: OPENS_AT_ONCE }, openOnce));
  await using last = await open(path, 'r+');
  await unlink(path);
  const text = await last.readFile('utf8');
  if (text !== 'often') throw new Error(`an unlinked open file holds ${text}`);
  count('opens', OPENS);
};

const EXERCISES = 20;

const calls: Turn = async ({ folder, random, count }) => {
  for (let i = 0; i < EXERCISES; i++) {
    exerciseFile(join(folder, `exercised${i}`), random);
    await sleep(1);
  }
  count('files exercised', EXERCISES);
};

const LANES: Readonly<Record<string, Turn>> = { blocks, trees, readers, opens, calls };
/** Milliseconds between two turns of a lane: the load is meant to last, not to saturate. */
const PAUSE_MS = 50;

const lane = async (turn: Turn, context: LaneContext): Promise<void> => {
  mkdirSync(context.folder);
  do {
    await turn(context);
    await sleep(PAUSE_MS);
  } while (!context.signal.aborted);
  rmSync(context.folder, { recursive: true });
};

export interface Load {
  /** What was done, by name. */
  readonly counts: ReadonlyMap<string, number>;
  /** Resolves when every lane has ended; rejects with the first wrong answer, which ends them all. */
  readonly ended: Promise<void>;
}

/**
 * Starts every lane in a folder below `mountpoint`, which they leave as they found it after `stop` has aborted, and
 * after one turn at least.
 */
export const startLoad = (mountpoint: string, random: Random, stop: AbortController): Load => {
  const counts = new Map<string, number>();
  const count = (what: string, times: number): void => void counts.set(what, (counts.get(what) ?? 0) + times);
  const lanes = Object.entries(LANES).map(([name, turn]) => {
    const context = {
      folder: join(mountpoint, name),
      random: new Random(random.next()),
      signal: stop.signal,
      count,
    };
    return lane(turn, context).catch((error: unknown) => {
      stop.abort();
      throw new Error(`lane ${name}: ${(error as Error).message}`, { cause: error });
    });
  });
  const ended = Promise.allSettled(lanes).then(() => Promise.all(lanes).then(() => undefined));
  // Looked at when the run is over.
  ended.catch(() => undefined);
  return { counts, ended };
};
