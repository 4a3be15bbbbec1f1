import t from 'tap';
import { MigrateFsError } from '../../src/leaves/errors.js';
import type { MigrationRequest, MigrationSnapshot } from '../../src/leaves/migration.js';
import { MiB, UNLIMITED } from '../../src/leaves/units.js';
import { RequestIds } from '../../src/replica/request-ids.js';
import { snapshotExample } from '../support/fake-migration-control.js';
import { scratchDir } from '../support/scratch.js';
import { makeImage, TestHost } from './source-world.js';

const REQUEST: MigrationRequest = {
  images: ['a.img', 'b.img'],
  target: 'host-b:7071',
  cutover: 'explicit',
  netLimit: UNLIMITED,
  diskLimit: UNLIMITED,
  priority: 0,
  requestId: 'task-1',
};

t.test('a second call waits for the first and starts nothing', async (t) => {
  const ids = new RequestIds(() => undefined);
  let started = 0;
  let finish = (_: MigrationSnapshot): void => {};
  const start = (): Promise<MigrationSnapshot> => {
    started++;
    return new Promise((resolve) => {
      finish = resolve;
    });
  };
  const calls = [ids.once(REQUEST, start), ids.once(REQUEST, start)];
  await t.rejects(ids.once({ ...REQUEST, target: 'host-c:7071' }, start), { code: 'INVALID_ARGUMENT' });
  finish(snapshotExample);
  t.same(await Promise.all(calls), [snapshotExample, snapshotExample]);
  t.equal(started, 1);
});

t.test('a start that failed may be repeated; without an id nothing is', async (t) => {
  const ids = new RequestIds(() => undefined);
  let started = 0;
  const fail = (): Promise<MigrationSnapshot> => {
    started++;
    return Promise.reject(new MigrateFsError('UNAVAILABLE', 'not there'));
  };
  await t.rejects(ids.once(REQUEST, fail), { code: 'UNAVAILABLE' });
  await t.rejects(ids.once(REQUEST, fail), { code: 'UNAVAILABLE' });
  t.equal(started, 2);
  const { requestId: _none, ...plain } = REQUEST;
  const start = (): Promise<MigrationSnapshot> => {
    started++;
    return Promise.resolve(snapshotExample);
  };
  await Promise.all([ids.once(plain, start), ids.once(plain, start)]);
  t.equal(started, 4);
});

t.test('a repeated start answers with the migration of that id, whatever has become of it', async (t) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  const to = target.replica.dataAddress;
  makeImage(source, 'a.img', MiB);
  makeImage(source, 'b.img', MiB, 2);
  const start = (more: Partial<MigrationRequest> = {}, images = ['a.img', 'b.img']) =>
    source.start(images, to, { requestId: 'task-1', ...more });
  const both = await Promise.all([start(), start({}, ['b.img', 'a.img'])]);
  const [{ id, requestId }] = both;
  t.equal(both[1].id, id, 'at the same time');
  t.equal(requestId, 'task-1');
  t.equal((await start({ priority: 3 })).id, id, 'while it runs');
  await t.rejects(start({}, ['a.img']), { code: 'INVALID_ARGUMENT', message: /task-1/ });
  await t.rejects(start({ target: '127.0.0.1:9' }), { code: 'INVALID_ARGUMENT' });
  await source.untilState(id, 'mirroring');
  await source.replica.cutover(id);
  t.match(await start(), { id, state: 'completed' }, 'when it has ended');
  t.equal((await source.replica.list()).length, 1);
  await t.rejects(
    start({ requestId: 'task-2' }),
    { code: 'FAILED_PRECONDITION' },
    'another id is another start',
  );
});
