/**
 * Guests' flushes of images in the lane go over the stream, and are answered once both sides have done them: whatever
 * becomes of the target, of the network or of the migration meanwhile, each is answered (G1).
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { KiB, MiB } from '../../src/leaves/units.js';
import type { CutProxy } from '../support/cut-proxy.js';
import { identical } from '../support/cutover.js';
import { bothSame, enterLane, IMAGE, type InSync, inSync } from '../support/in-lane.js';
import { waitFor } from '../support/wait-for.js';

const FLUSHED = 4 * MiB;
const BLOCK = 4 * KiB;
const JOBS = 3;
/** Of one record without payload. */
const RECORD_BYTES = 40;

/** Guests each of whom writes a block of its own with a growing number, and flushes it: no more is promised than it was told. */
class FlushLoad {
  /** By job, the last number that was flushed. */
  readonly flushed: number[] = [];
  #stopping = false;
  #jobs: Promise<unknown>[] = [];
  /** Codes of the errors that ended jobs. */
  readonly errors: string[] = [];

  async start(path: string): Promise<void> {
    const durable = await open(path, constants.O_RDWR | constants.O_DSYNC);
    const plain = await open(path, 'r+');
    this.#stopping = false;
    this.#jobs = Array.from({ length: JOBS }, (_, job) =>
      this.#run(job, job === 0 ? durable : plain, job > 0).catch((error: NodeJS.ErrnoException) =>
        this.errors.push(String(error.code)),
      ),
    );
    void Promise.all(this.#jobs).then(() => Promise.all([durable.close(), plain.close()]));
  }

  get flushes(): number {
    return this.flushed.reduce((sum, each) => sum + each, 0);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.ended();
  }

  async ended(): Promise<void> {
    await Promise.all(this.#jobs);
  }

  /** Resolves when each job has been told of some more. */
  async goesOn(): Promise<void> {
    const before = [...this.flushed];
    const more = (each: number, job: number): boolean => each > (before[job] ?? 0) + 5;
    await waitFor(() => this.flushed.length === JOBS && this.flushed.every(more), 'every guest goes on');
  }

  /** Jobs whose last flushed number is not in the file, nor a later one. */
  async lost(path: string): Promise<number[]> {
    await using file = await open(path, 'r');
    const block = Buffer.alloc(BLOCK);
    const lost: number[] = [];
    for (const [job, number] of this.flushed.entries()) {
      await file.read(block, 0, BLOCK, FLUSHED + job * BLOCK);
      if (block.readUInt32LE(0) < number) lost.push(job);
    }
    return lost;
  }

  async #run(job: number, file: FileHandle, flush: boolean): Promise<void> {
    const block = Buffer.alloc(BLOCK, job);
    for (let number = (this.flushed[job] ?? 0) + 1; !this.#stopping; number++) {
      block.writeUInt32LE(number, 0);
      await file.write(block, 0, BLOCK, FLUSHED + job * BLOCK);
      if (flush) await file.datasync();
      this.flushed[job] = number;
    }
  }
}

const inTheLane = async (t: Test): Promise<InSync> => {
  const world = await inSync(t);
  await enterLane(world.pair, world.proxy);
  return world;
};

/** Whether the promise has settled by the time that others have had their turn. */
const pending = async (promise: Promise<unknown>): Promise<boolean> =>
  (await Promise.race([promise.then(() => 'settled'), new Promise(setImmediate)])) !== 'settled';

/** A guest's flush, which the target has been sent when this resolves. */
const begunFlush = async (
  file: FileHandle,
  { carried }: CutProxy,
): Promise<{ readonly done: Promise<void> }> => {
  const stream = carried.length - 1;
  const before = carried[stream]!;
  const done = file.datasync();
  await waitFor(() => carried[stream]! > before, 'a record for it');
  return { done };
};

t.test('a flush and a durable write are answered once the target says that it has flushed', async (t) => {
  const { pair, proxy } = await inTheLane(t);
  const path = pair.source.daemon.at(IMAGE);
  await using plain = await open(path, 'r+');
  await using durable = await open(path, constants.O_RDWR | constants.O_DSYNC);
  proxy.holdReplies();
  const flush = await begunFlush(plain, proxy);
  const write = durable.write(Buffer.alloc(BLOCK, 7), 0, BLOCK, FLUSHED);
  // Whatever goes to the daemon later, and does not need the target, has been answered by then.
  for (let i = 0; i < 100; i++) await plain.read(Buffer.alloc(BLOCK), 0, BLOCK, i * BLOCK);
  t.ok(await pending(flush.done), 'the flush is not');
  t.ok(await pending(write), 'nor is the write');
  proxy.letReplies();
  await flush.done;
  t.equal((await write).bytesWritten, BLOCK);
});

t.test('flushes and durable writes go over the stream', async (t) => {
  const world = await inTheLane(t);
  const { pair, proxy } = world;
  await using plain = await open(pair.source.daemon.at(IMAGE), 'r+');
  await using durable = await open(pair.source.daemon.at(IMAGE), constants.O_RDWR | constants.O_DSYNC);
  const FLUSHES = 200;
  const bytesOf = (): readonly [number, number] => [proxy.carried.at(-2)!, proxy.carried.at(-1)!];
  const [connection, stream] = bytesOf();
  for (let i = 0; i < FLUSHES; i++) await plain.datasync();
  const [connectionFlushed, streamFlushed] = bytesOf();
  t.equal(streamFlushed - stream, FLUSHES * RECORD_BYTES, 'a record each');
  for (let i = 0; i < FLUSHES; i++) await durable.write(Buffer.alloc(512, i), 0, 512, FLUSHED);
  const [connectionThen, streamThen] = bytesOf();
  t.equal(streamThen - streamFlushed, FLUSHES * (2 * RECORD_BYTES + 512), 'a write and a flush each');
  t.ok(connectionThen - connection < FLUSHES * 10, `connection: ${connectionThen - connection} bytes`);
  t.ok(connectionFlushed >= connection);
  await bothSame(t, world);
});

t.test('a target that does not come back from a flush is given up, and the guest answered', async (t) => {
  const world = await inTheLane(t);
  const { pair, proxy, migration } = world;
  await using plain = await open(pair.source.daemon.at(IMAGE), 'r+');
  proxy.holdReplies();
  const { done } = await begunFlush(plain, proxy);
  await migration.reaches('interrupted');
  await done;
  await migration.reaches('mirroring');
  await bothSame(t, world);
});

for (const failure of ['cut', 'silence'] as const)
  t.test(`the network is gone (${failure}) under flushes: each is answered, nothing is lost`, async (t) => {
    const world = await inSync(t);
    const { pair, proxy, migration } = world;
    const load = new FlushLoad();
    const path = pair.source.daemon.at(IMAGE);
    for (let round = 0; round < (failure === 'cut' ? 3 : 1); round++) {
      await enterLane(pair, proxy);
      await load.start(path);
      await load.goesOn();
      proxy[failure]();
      await migration.reaches('interrupted');
      await load.goesOn();
      proxy.heal();
      await migration.reaches('mirroring');
      await load.goesOn();
      await load.stop();
      t.same(load.errors, [], 'no guest has seen an error');
      await bothSame(t, world);
    }
    t.same(await load.lost(path), []);
  });

t.test('a cutover under flushes loses nothing that was flushed (G1, G2)', async (t) => {
  const world = await inTheLane(t);
  const { pair, migration } = world;
  const load = new FlushLoad();
  await load.start(pair.source.daemon.at(IMAGE));
  await load.goesOn();
  await pair.source.client.cutover(migration.id);
  await migration.reaches('completed');
  await load.ended();
  t.same([...new Set(load.errors)], ['EROFS']);
  t.ok(await identical(pair.source.daemon.below(IMAGE), pair.target.daemon.below(IMAGE)));
  t.same(await load.lost(pair.target.daemon.at(IMAGE)), []);
});
