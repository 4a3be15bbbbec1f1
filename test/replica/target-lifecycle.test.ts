import { execFileSync } from 'node:child_process';
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { writeRecord } from '../../src/fs/image-record.js';
import { ImageMode } from '../../src/fs/image-table.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { bytes } from '../../src/leaves/units.js';
import { scratchDir } from '../support/scratch.js';
import { folder, ID, IMAGE, TargetWorld } from './target-world.js';

const START = 0;
const RESUME = 1;
const DISCARD = 2;
const MIB = 1024 * 1024;

t.test('another protocol version is refused, both named', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.source();
  const { failure } = await source.hello({ protocolVersion: 77 });
  t.match(failure, { code: 'FAILED_PRECONDITION', message: /source speaks 77.*target speaks 2\b/ });
  await source.connection.closed;
  t.same(readdirSync(world.dir), []);
});

t.test('unacceptable names and terms are refused and nothing is made', async (t) => {
  const world = await TargetWorld.start(t);
  for (const fields of [
    { images: [{ ...IMAGE, name: '../out' }] },
    { images: [{ ...IMAGE, name: '/etc/x' }] },
    { images: [] },
    { images: [IMAGE, IMAGE] },
    { migrationId: '../x' },
    { migrationId: '' },
    { cutover: 'never' },
    { cutover: 'y'.repeat(65_000) },
    { images: [{ ...IMAGE, name: 'y'.repeat(65_000), generation: 2 ** 33 }] },
    { images: [{ ...IMAGE, generation: 2 ** 33 }] },
    { images: [1, 2].map((n) => ({ ...IMAGE, name: `${n}`, allocated: 2 ** 53 - 1 })) },
    { priority: 10 },
    { purpose: 9 as never },
  ]) {
    const source = await world.source();
    const { failure } = await source.hello(fields);
    t.match(failure, { code: 'INVALID_ARGUMENT' }, JSON.stringify(fields).slice(0, 200));
    t.ok(failure!.message!.length <= 1000);
  }
  t.same(readdirSync(world.dir), []);
});

for (const restarted of [false, true])
  t.test(
    `replicas of a source that has forgotten them are taken over (${restarted ? 'both' : 'it'} restarted)`,
    async (t) => {
      const dir = scratchDir(t, 'B-forgotten');
      const before = await TargetWorld.start(t, { dir });
      const first = await before.started();
      await first.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(4096, 7));
      first.connection.destroy();
      await before.state('interrupted');
      if (restarted) await before.stop();
      const world = restarted ? await TargetWorld.start(t, { dir }) : before;
      const inode = statSync(world.path()).ino;
      const stranger = await (await world.source()).hello({
        migrationId: 'm-2',
        sourceAddress: '10.0.0.9:7071',
      });
      t.match(stranger.failure, { code: 'ALREADY_EXISTS' });
      const source = await world.source();
      const images = [{ ...IMAGE, size: 512 * 1024, mode: 0o600, generation: 6 }];
      t.match(await source.hello({ migrationId: 'm-2', images }), {
        failure: null,
        adopted: true,
        remembers: false,
      });
      t.match(statSync(world.path()), { ino: inode, size: 512 * 1024, mode: 0o100600 });
      t.equal(world.content()[0], 7, 'what was copied is still there');
      t.match(world.record(), { role: 'replica', migration: 'm-2', generation: 6 });
      if (!restarted)
        t.match(world.targets.get(ID)!.snapshot(), { state: 'cancelled', error: { code: 'CANCELLED' } });
      const late = await (await world.source()).hello({ purpose: DISCARD });
      t.equal(late.failure, null);
      t.ok(world.exists(), 'a late discard of the earlier migration removes nothing');
      t.match(
        (await (await world.source()).hello({ migrationId: 'm-3' })).failure,
        { code: 'ALREADY_EXISTS' },
        'not while the migration has a connection',
      );
    },
  );

t.test('a group that was half taken over when the target crashed is taken over', async (t) => {
  const dir = scratchDir(t, 'B-half');
  const images = ['a.img', 'b.img'].map((name) => ({ ...IMAGE, name }));
  const before = await TargetWorld.start(t, { dir });
  const first = await before.started({ images });
  for (const image of [0, 1]) await first.do({ data: { image, offset: 0 } }, Buffer.alloc(4096, 7 + image));
  await before.stop();
  const crashed = await TargetWorld.start(t, {
    dir,
    context: {
      writeRecord: (fd, record) => {
        if (crashed.record('a.img')!.migration === record.migration)
          throw new MigrateFsError('INTERNAL', 'as if it were killed here');
        writeRecord(fd, record);
      },
    },
  });
  t.match((await (await crashed.source()).hello({ migrationId: 'm-2', images })).failure, {
    code: 'INTERNAL',
  });
  await crashed.stop();
  t.equal(crashed.record('a.img')!.migration, 'm-2');
  t.equal(crashed.record('b.img')!.migration, ID, 'one group, two migrations');
  const world = await TargetWorld.start(t, { dir });
  t.match(
    (await (await world.source()).hello({ migrationId: 'm-3', images, sourceAddress: '10.0.0.9:7071' }))
      .failure,
    { code: 'ALREADY_EXISTS' },
    'not by another host',
  );
  const reply = await (await world.source()).hello({ migrationId: 'm-3', images });
  t.match(reply, { failure: null, adopted: true, remembers: false });
  for (const [index, { name }] of images.entries()) {
    t.match(world.record(name), { role: 'replica', migration: 'm-3' });
    t.equal(world.content(name)[0], 7 + index, 'what was copied is still there');
  }
});

t.test('replicas that were offered, or belong to more than was asked for, are not taken over', async (t) => {
  const world = await TargetWorld.start(t, {
    context: {
      writeRecord: () => {
        throw new MigrateFsError('INTERNAL', 'EIO');
      },
    },
  });
  const offered = await world.started();
  offered.inSync();
  offered.connection.send({ cutoverOffer: { generations: [IMAGE.generation + 1] } });
  await offered.next('failure');
  offered.connection.destroy();
  await world.state('interrupted');
  const images = ['a.img', 'b.img'].map((name) => ({ ...IMAGE, name }));
  const group = await world.started({ migrationId: 'm-group', images });
  await world.state('bulk-copy', 'm-group');
  group.connection.destroy();
  await world.state('interrupted', 'm-group');
  for (const image of [IMAGE, images[0]!]) {
    const reply = await (await world.source()).hello({ migrationId: 'm-2', images: [image] });
    t.match(reply.failure, { code: 'ALREADY_EXISTS' }, image.name);
  }
  t.equal(world.targets.get('m-group')!.state, 'interrupted');
});

t.test('a taken name is ALREADY_EXISTS, and no image of the group stays', async (t) => {
  const world = await TargetWorld.start(t);
  writeFileSync(world.path('b.img'), 'precious');
  const source = await world.source();
  const { failure } = await source.hello({
    images: [
      { ...IMAGE, name: 'new/a.img' },
      { ...IMAGE, name: 'b.img' },
    ],
  });
  t.equal(failure?.code, 'ALREADY_EXISTS');
  t.same(readdirSync(world.dir), ['b.img']);
  t.equal(world.content('b.img').toString(), 'precious');
});

t.test('too small a disk is RESOURCE_EXHAUSTED with both numbers, before anything is made', async (t) => {
  const free = 100 * MIB;
  const world = await TargetWorld.start(t, {
    store: (store) => ({
      ...store,
      freeSpace: async (names) => names.map(() => ({ device: 1, free: bytes(free) })),
    }),
  });
  const big = (allocated: number, id: string) => ({
    migrationId: id,
    images: [{ ...IMAGE, name: `${id}.img`, size: 2 ** 40, allocated }],
  });
  const refused = await (await world.source()).hello(big(free, 'big'));
  t.match(refused.failure, {
    code: 'RESOURCE_EXHAUSTED',
    message: new RegExp(`${free} bytes.*${free} are free`),
  });
  t.same(readdirSync(world.dir), []);
  await world.started(big(50 * MIB, 'first'));
  const second = await (await world.source()).hello(big(50 * MIB, 'second'));
  t.match(second.failure, { code: 'RESOURCE_EXHAUSTED', message: /promised to other/ });
  t.same(readdirSync(world.dir), ['first.img']);
});

t.test('what is free is asked of the file system on which an image lies', async (t) => {
  // By the folder: a large disk, and two small ones mounted below it.
  const free: Record<string, number> = { large: 1000 * MIB, small: 100 * MIB, other: 100 * MIB };
  const world = await TargetWorld.start(t, {
    store: (store) => ({
      ...store,
      freeSpace: async (names) =>
        names.map((name) => {
          const folder = name.split('/')[0]!;
          return { device: Object.keys(free).indexOf(folder), free: bytes(free[folder]!) };
        }),
    }),
  });
  const images = (...wanted: [name: string, allocated: number][]) => ({
    migrationId: wanted[0]![0].replace('/', '-'),
    images: wanted.map(([name, allocated]) => ({ ...IMAGE, name, size: 2 ** 40, allocated })),
  });
  const hello = async (...wanted: [name: string, allocated: number][]) =>
    (await (await world.source()).hello(images(...wanted))).failure?.message ?? '';
  t.match(await hello(['large/a', 10 * MIB], ['small/a', 90 * MIB]), /allocate 94371840 bytes, 104857600/);
  t.equal(await hello(['large/b', 500 * MIB], ['small/b', 60 * MIB]), '', 'each has room on its own');
  t.match(await hello(['small/c', 60 * MIB]), /promised to other/);
  t.equal(await hello(['other/c', 60 * MIB]), '', 'what is promised elsewhere takes no room here');
});

t.test('a disk that runs full fails the change, and the discard leaves nothing (G4)', async (t) => {
  const dir = folder(scratchDir(t, 'B-full'), 'mnt');
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'mfs-test', dir]);
  t.teardown(() => execFileSync('umount', ['-l', dir]));
  const world = await TargetWorld.start(t, { dir });
  const source = await world.started({ images: [{ ...IMAGE, size: 64 * MIB, allocated: MIB }] });
  const outcomes = new Set<string>();
  for (let i = 0; i < 32; i++)
    outcomes.add(await source.do({ data: { image: 0, offset: i * MIB } }, Buffer.alloc(MIB, 1)));
  t.same([...outcomes], ['ok', 'RESOURCE_EXHAUSTED']);
  t.equal(
    await source.do({ data: { image: 0, offset: 40 * MIB } }, Buffer.alloc(4096, 1)),
    'RESOURCE_EXHAUSTED',
  );
  source.connection.send({ failure: { code: 'RESOURCE_EXHAUSTED', message: 'target full' } });
  source.connection.send({ discard: {} });
  await source.next('discarded');
  t.same(readdirSync(dir), []);
  t.match(world.targets.get(ID)?.snapshot(), { state: 'failed', error: { code: 'RESOURCE_EXHAUSTED' } });
});

t.test(
  'DISCARD over a new connection leaves nothing, directories included, and may be repeated',
  async (t) => {
    const world = await TargetWorld.start(t);
    const images = [
      { ...IMAGE, name: 'x/y/a.img' },
      { ...IMAGE, name: 'x/b.img' },
    ];
    const source = await world.started({ images });
    for (let i = 0; i < 40; i++) source.send({ data: { image: 0, offset: 0 } }, Buffer.alloc(MIB / 2, i));
    for (let i = 0; i < 2; i++) {
      const again = await world.source();
      t.notOk((await again.hello({ purpose: DISCARD, images })).failure);
      await again.next('discarded');
      t.same(readdirSync(world.dir), []);
    }
    t.equal(world.targets.get(ID)?.state, 'cancelled');
  },
);

t.test('after a restart DISCARD removes by record what is of this migration and nothing else', async (t) => {
  const dir = scratchDir(t, 'B-discard');
  const images = ['a.img', 'b.img', 'c.img', 'd.img'].map((name) => ({ ...IMAGE, name }));
  const before = await TargetWorld.start(t, { dir });
  await before.started({ images: images.slice(0, 1) });
  await before.started({ images: images.slice(1, 2), migrationId: 'another' });
  await before.stop();
  writeFileSync(before.path('c.img'), 'an image of this host');
  const world = await TargetWorld.start(t, { dir });
  const source = await world.source();
  t.notOk((await source.hello({ purpose: DISCARD, images })).failure);
  await source.next('discarded');
  t.same(readdirSync(dir).sort(), ['b.img', 'c.img']);
});

t.test('RESUME in the same run remembers; what came before cannot overwrite what comes after', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  source.connection.send({ phase: { state: 'bulk-copy' } });
  let last = 0;
  for (let i = 1; i <= 24; i++) last = source.send({ data: { image: 0, offset: 0 } }, Buffer.alloc(MIB, i));
  await source.outcome(last - 20);
  source.connection.destroy();
  const again = await world.source();
  t.match(await again.hello({ purpose: RESUME }), { remembers: true, taken: false });
  t.equal(world.targets.get(ID)?.state, 'interrupted');
  again.connection.send({ phase: { state: 'dirty-resend' } });
  t.equal(await again.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(MIB, 0xee)), 'ok');
  t.ok(world.content().equals(Buffer.alloc(MIB, 0xee)));
  t.equal(world.targets.get(ID)?.state, 'dirty-resend');
});

t.test('RESUME after a restart adopts the replicas and does not remember', async (t) => {
  const dir = scratchDir(t, 'B-resume');
  const before = await TargetWorld.start(t, { dir });
  const first = await before.started();
  await first.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(4096, 1));
  await before.stop();
  const world = await TargetWorld.start(t, { dir });
  t.same(world.targets.list(), []);
  const source = await world.source();
  t.match(await source.hello({ purpose: RESUME }), { remembers: false, taken: false });
  t.equal(world.mode(), ImageMode.fenced);
  source.send({ digestRequest: { image: 0, offset: 0, length: 4096 } });
  t.equal((await source.next('digestReply')).digestReply.sha256.length, 32);
  t.equal(await source.do({ data: { image: 0, offset: 4096 } }, Buffer.alloc(4096, 2)), 'ok');
});

t.test('RESUME of what is not here is NOT_FOUND and pins nothing', async (t) => {
  const world = await TargetWorld.start(t);
  writeFileSync(world.path(), 'an image of this host');
  for (let i = 0; i < 2; i++)
    t.match((await (await world.source()).hello({ purpose: RESUME })).failure, { code: 'NOT_FOUND' });
  t.equal(world.content().toString(), 'an image of this host');
});

t.test('the migration of a lost source waits, interrupted, and START is refused to others', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  await world.state('bulk-copy');
  source.connection.destroy();
  await world.state('interrupted');
  t.ok(world.exists());
  t.match((await (await world.source()).hello({ purpose: START })).failure, { code: 'ALREADY_EXISTS' });
  const stranger = { migrationId: 'm-2', sourceAddress: '10.0.0.9:7071' };
  t.match((await (await world.source()).hello(stranger)).failure, { code: 'ALREADY_EXISTS' });
});

t.test('a source that leaves before it has begun leaves nothing (G4)', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.source();
  t.notOk((await source.hello()).failure);
  t.ok(world.exists());
  source.connection.destroy();
  await world.state('cancelled');
  while (world.exists()) await new Promise((resolve) => setImmediate(resolve));
  t.match(
    (await (await world.source()).hello({ purpose: RESUME })).failure,
    { code: 'FAILED_PRECONDITION' },
    'nobody has cancelled it',
  );
});

for (const comesBack of [true, false])
  t.test(
    `replicas that were here before stay when a source leaves at once, and ${comesBack ? 'it' : 'a later one'} goes on`,
    async (t) => {
      const world = await TargetWorld.start(t);
      const first = await world.started();
      await first.do({ data: { image: 0, offset: 0 } }, Buffer.alloc(4096, 7));
      first.connection.destroy();
      await world.state('interrupted');
      const second = await world.source();
      t.match(await second.hello({ migrationId: 'm-2' }), { failure: null, adopted: true });
      second.connection.destroy();
      while (world.targets.get('m-2')!.connected) await new Promise((resolve) => setImmediate(resolve));
      const third = await world.source();
      if (comesBack) t.match(await third.hello({ migrationId: 'm-2', purpose: RESUME }), { failure: null });
      else t.match(await third.hello({ migrationId: 'm-3' }), { failure: null, adopted: true });
      t.equal(world.content()[0], 7, 'what was copied is still there');
      third.connection.send({ phase: { state: 'bulk-copy' } });
      await world.state('bulk-copy', comesBack ? 'm-2' : 'm-3');
    },
  );

t.test(
  'cancel on the target tells the source and leaves nothing; what still arrives is dropped',
  async (t) => {
    const world = await TargetWorld.start(t);
    const source = await world.started();
    for (let i = 0; i < 30; i++) source.send({ data: { image: 0, offset: 0 } }, Buffer.alloc(MIB / 2, i));
    await source.outcome(1);
    const migration = world.targets.get(ID)!;
    const cancelled = migration.cancel();
    for (let i = 0; i < 30; i++) source.send({ data: { image: 0, offset: 0 } }, Buffer.alloc(MIB / 2, i));
    t.match((await source.next('failure')).failure, { code: 'CANCELLED' });
    await cancelled;
    t.same(readdirSync(world.dir), []);
    await migration.cancel();
    t.match((await (await world.source()).hello({ purpose: RESUME })).failure, { code: 'CANCELLED' });
    t.match(migration.snapshot(), { state: 'cancelled', error: { code: 'CANCELLED' } });
  },
);

t.test('a replica that another migration owns by its record is never removed by release (G4)', async (t) => {
  const world = await TargetWorld.start(t);
  const source = await world.started();
  const { file } = world.targets.get(ID)!.images[0]!;
  writeRecord(file.fd, { role: 'owner', generation: 9, migration: 'x', peer: '', inode: 0 });
  source.connection.send({ discard: {} });
  await source.next('discarded');
  t.ok(world.exists());
  t.ok(world.log.some(({ message }) => message === 'cannot remove a replica'));
});

t.test('a store that fails half-way leaves no image of the group', async (t) => {
  let left = 2;
  const world = await TargetWorld.start(t, {
    store: (store) => ({
      ...store,
      createReplica: async (name, attributes) => {
        if (left-- === 0) throw new MigrateFsError('INTERNAL', 'EIO');
        return store.createReplica(name, attributes);
      },
    }),
  });
  const images = ['p/a', 'p/b', 'q/c'].map((name) => ({ ...IMAGE, name }));
  t.match((await (await world.source()).hello({ images })).failure, { code: 'INTERNAL' });
  t.same(readdirSync(world.dir), []);
});
