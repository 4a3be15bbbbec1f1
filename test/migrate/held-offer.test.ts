/** A guest at the source waits while the target has not answered the offer of its image (G3, G4). */
import { closeSync, constants, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import t from 'tap';
import { KiB, MiB } from '../../src/leaves/units.js';
import { FakeTarget } from '../replica/source-fake-target.js';
import { writeRefusal } from '../support/cutover.js';
import { recordOf } from '../support/debris.js';
import { FileUser } from '../support/file-user.js';
import { makeSparseImage } from '../support/files.js';
import { OtherProcess } from '../support/other-process.js';
import { migrate, startHost } from '../support/pair.js';
import type { Teardown } from '../support/scratch.js';
import type { Transport } from '../support/test-daemon.js';
import { within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const IMAGE = 'vm.raw';
const SIZE = 4 * MiB;
const LONGER = 5 * MiB;
/** Far less than the answer is waited for. */
const END_MAX_MS = 5_000;

/** A daemon with a mount whose image a target has been offered that says nothing. */
const offered = async (t: Teardown, transport: Transport) => {
  const source = await startHost(t, { transport });
  const target = await FakeTarget.open(t);
  makeSparseImage(source.daemon.below(IMAGE), SIZE, [{ offset: 0, length: MiB }]);
  const users = [
    await FileUser.start(t, source.daemon.at(IMAGE)),
    await FileUser.start(t, source.daemon.at(IMAGE)),
  ] as const;
  const offer = new Promise<void>((resolve) => {
    target.onFrame = ({ body }) => {
      if (body === 'cutoverOffer') resolve();
    };
  });
  const migration = await migrate(t, { source, target: source }, [IMAGE], {
    to: target.address,
    cutover: 'when-in-sync',
    broker: 'off',
  });
  await offer;
  return { source, target, users, migration };
};

/** What it asked for is with the daemon. */
const waits = ({ pid }: FileUser): Promise<void> =>
  waitFor(
    () => /^(request_wait|fuse|folio_wait)/.test(readFileSync(`/proc/${pid}/wchan`, 'utf8')),
    'it waits for the daemon',
  );

const textBelow = (path: string, offset: number, length: number): string => {
  const fd = openSync(path, 'r');
  const data = Buffer.alloc(length);
  readSync(fd, data, 0, length, offset);
  closeSync(fd);
  return data.toString('latin1');
};

t.test('a target that gives up: what guests wanted meanwhile is done', async (t) => {
  for (const transport of ['kernel', 'fuse-native'] as const) {
    const { source, target, users, migration } = await offered(t, transport);
    const image = source.daemon.at(IMAGE);
    let answered = 0;
    const count = <T>(result: T): T => {
      answered++;
      return result;
    };
    const written = users[0].write(64 * KiB, 'held').then(count);
    const grown = truncate(image, LONGER).then(count);
    await waits(users[0]);
    t.match(await users[1].read(0, 4), /^....$/, 'reads go on');
    t.match(await recordOf(source.daemon.below(IMAGE)), /fenced/, 'on disk');
    t.equal(answered, 0, transport);
    target.send({ failure: { code: 'CANCELLED', message: 'given up' } });
    await migration.reaches('cancelled');
    t.equal(await written, '4', transport);
    await grown;
    t.equal(textBelow(source.daemon.below(IMAGE), 64 * KiB, 4), 'held');
    t.equal(statSync(source.daemon.below(IMAGE)).size, LONGER);
    t.equal(await recordOf(source.daemon.below(IMAGE)), '');
    for (const user of users) await user.close();
    await source.daemon.stop();
  }
});

t.test('a target that takes it: what guests wanted meanwhile is refused', async (t) => {
  for (const transport of ['kernel', 'fuse-native'] as const) {
    const { source, target, users, migration } = await offered(t, transport);
    const written = users[0].write(64 * KiB, 'held');
    const grown = truncate(source.daemon.at(IMAGE), LONGER).then(
      () => '',
      ({ code }: NodeJS.ErrnoException) => code,
    );
    await waits(users[0]);
    target.send({ cutoverTaken: {} });
    await migration.reaches('completed');
    t.equal(await written, 'EROFS', transport);
    t.equal(await grown, 'EROFS', transport);
    t.not(textBelow(source.daemon.below(IMAGE), 64 * KiB, 4), 'held');
    t.equal(statSync(source.daemon.below(IMAGE)).size, SIZE);
    t.equal(await writeRefusal(source.daemon.at(IMAGE)), 'EROFS');
    for (const user of users) await user.close();
    await source.daemon.stop();
  }
});

t.test('a guest that is killed ends, and what it wanted is not done', async (t) => {
  const { source, target, users, migration } = await offered(t, 'kernel');
  void users[0].write(64 * KiB, 'killed');
  const other = users[1].write(128 * KiB, 'held');
  let answered = false;
  void other.then(() => {
    answered = true;
  });
  await waits(users[0]);
  await waits(users[1]);
  users[0].kill('SIGKILL');
  t.equal(await within(users[0].ended, END_MAX_MS, () => 'it does not end'), 'SIGKILL');
  t.notOk(answered, 'the other one waits');
  target.send({ failure: { code: 'CANCELLED', message: 'given up' } });
  t.equal(await other, '4');
  await migration.reaches('cancelled');
  t.not(textBelow(source.daemon.below(IMAGE), 64 * KiB, 6), 'killed');
  t.equal(textBelow(source.daemon.below(IMAGE), 128 * KiB, 4), 'held');
});

t.test('what was written to a mapping waits as well', async (t) => {
  const { source, target, users, migration } = await offered(t, 'kernel');
  const mapped = await OtherProcess.start(t, source.daemon.at(IMAGE), constants.O_RDWR);
  await mapped.call('map', SIZE);
  await mapped.call('write mapped', 0, 'mapped');
  let answered = false;
  const synced = users[0].sync().finally(() => {
    answered = true;
  });
  await waits(users[0]);
  t.match(await users[1].read(MiB, 4), /^.{4}$/, 'reads go on');
  t.notOk(answered);
  target.send({ failure: { code: 'CANCELLED', message: 'given up' } });
  t.equal(await synced, 'synced');
  await migration.reaches('cancelled');
  t.equal(textBelow(source.daemon.below(IMAGE), 0, 6), 'mapped');
});
