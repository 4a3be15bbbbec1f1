/** Replicas are flushed while they are received, so that a cutover has little to wait for. */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { MiB } from '../../src/leaves/units.js';
import { BackingFile } from '../../src/replica/target/backing-file.js';
import { FlushAhead } from '../../src/replica/target/flush-ahead.js';
import { ManualClock } from '../support/manual-clock.js';
import { scratchDir } from '../support/scratch.js';
import { StuckFile } from '../support/stuck-file.js';
import { ID, TargetWorld } from './target-world.js';

/** Replicas whose flushes end when the test says. */
class Disks {
  readonly clock = new ManualClock();
  readonly failures: unknown[] = [];
  changes = 0;
  flushes = 0;
  #end: ((error?: Error) => void)[] = [];
  readonly ahead = new FlushAhead({
    clock: this.clock,
    images: () => [
      { changes: this.changes, file: { datasync: () => this.#flush() } },
      { changes: 0, file: { datasync: () => this.#flush() } },
    ],
    failed: (index, error) => this.failures.push([index, error]),
  });

  /** Ends the flushes that are under way. */
  async end(error?: Error): Promise<void> {
    for (const end of this.#end.splice(0)) end(error);
    await this.ahead.idle;
  }

  #flush(): Promise<void> {
    this.flushes++;
    return new Promise((resolve, reject) => {
      this.#end.push((error) => (error ? reject(error) : resolve()));
    });
  }
}

t.test('what was changed is flushed within a second, what was not is not', async (t) => {
  const disks = new Disks();
  disks.ahead.start();
  await disks.clock.advance(5000);
  t.equal(disks.flushes, 0);
  disks.changes = 1;
  await disks.clock.advance(1000);
  t.equal(disks.flushes, 2, 'every image');
  await disks.end();
  await disks.clock.advance(5000);
  t.equal(disks.flushes, 2);
  disks.changes = 2;
  disks.ahead.flush();
  t.equal(disks.flushes, 4, 'at once where it is asked for');
  await disks.end();
  disks.ahead.stop();
  disks.changes = 3;
  await disks.clock.advance(5000);
  t.equal(disks.flushes, 4);
  t.equal(disks.clock.pending, 0);
});

t.test('a slow disk has one flush at a time, and what comes meanwhile has the next', async (t) => {
  const disks = new Disks();
  disks.ahead.start();
  disks.changes = 1;
  await disks.clock.advance(1000);
  disks.changes = 2;
  await disks.clock.advance(10_000);
  t.equal(disks.flushes, 2);
  await disks.end();
  await disks.clock.advance(1000);
  t.equal(disks.flushes, 4);
  await disks.end();
  disks.ahead.stop();
});

t.test('a flush that fails is told, and the next are made', async (t) => {
  const disks = new Disks();
  disks.ahead.start();
  disks.changes = 1;
  await disks.clock.advance(1000);
  const error = new Error('EIO');
  await disks.end(error);
  t.same(disks.failures, [
    [0, error],
    [1, error],
  ]);
  disks.changes = 2;
  await disks.clock.advance(1000);
  t.equal(disks.flushes, 4);
  await disks.end();
  disks.ahead.stop();
});

t.test('a replica that cannot be flushed fails the migration', async (t) => {
  const clock = new ManualClock();
  const world = await TargetWorld.start(t, { clock });
  const source = await world.started();
  const file = world.targets.get(ID)!.images[0]!.file;
  file.datasync = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }));
  t.equal(await source.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(512, 1)), 'ok');
  await clock.advance(1000);
  t.match(await source.failure(), { code: 'INTERNAL', message: /cannot sync disk\.img on the target: EIO/ });
});

t.test('a first write has the replica flushed while the source fences the images', async (t) => {
  const clock = new ManualClock();
  const world = await TargetWorld.start(t, { clock });
  const source = await world.started();
  source.inSync();
  await world.state('mirroring');
  t.equal(await source.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(512, 1)), 'ok');
  const file = world.targets.get(ID)!.images[0]!.file;
  const flushed = new Promise<void>((resolve) => {
    file.datasync = async () => resolve();
  });
  const held = world.guest({ op: 'write', offset: 0, payload: Buffer.alloc(512, 2) });
  await source.next('cutoverRequest');
  await flushed;
  source.connection.close();
  await world.targets.get(ID)!.shutDown();
  await held;
});

t.test(
  'a write-out that failed is known to every flush of the replica, although one is told of it',
  async (t) => {
    const path = join(scratchDir(t, 'stuck'), 'image');
    const stuck = await StuckFile.start(t, path, MiB);
    const fd = openSync(path, 'r+');
    t.teardown(() => closeSync(fd));
    const file = new BackingFile(fd, createBackingCalls());
    await file.datasync();
    await stuck.lose();
    await stuck.hold();
    const first = t.rejects(file.datasync(), { code: 'EIO' });
    const beside = t.rejects(file.datasync(), { code: 'EIO' }, 'one that was asked for beside it');
    await stuck.held(1);
    await stuck.release();
    await Promise.all([first, beside]);
    await t.rejects(file.datasync(), { code: 'EIO' }, 'and every later one');
  },
);
