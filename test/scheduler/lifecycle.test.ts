import t from 'tap';
import { migrationRequestOf, startRequestMessage } from '../../src/control/start-request.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { bytes, millis, UNLIMITED } from '../../src/leaves/units.js';
import { BEGIN, SchedulerWorld } from '../support/scheduler-world.js';

const FAILURE = { code: 'RESOURCE_EXHAUSTED', message: 'the disk of b is full' } as const;

t.test('a VM is moved once its disks are in sync, and its first write closes the task', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  t.match(world.hosts.starts, [{ images: ['vm1.raw'], target: 'b', cutover: 'on-first-write', danger: 3 }]);
  t.equal(world.driver.begun, 0, 'not before it is in sync');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.driver.end(id, 'moved');
  await world.untilState(id, 'finishing');
  world.hosts.set('m1', 'completed');
  await world.untilState(id, 'done');
  t.same(world.states(id), ['waiting', 'starting', 'copying', 'handing-over', 'finishing', 'done']);
  t.same(world.hosts.cutovers, [], 'the VM did it');
  t.equal(world.driver.begun, 1);
});

t.test('a VM that does not write is handed its images after the wait for it', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.driver.end(id, 'moved');
  await world.untilState(id, 'done');
  t.same(world.hosts.cutovers, ['m1']);
  const at = (state: string): number =>
    world.scheduler.decisions(id).find((decision) => decision.state === state)!.at;
  t.ok(at('done') - at('finishing') >= 5000, 'not before');
});

t.test('without a driver the images are handed over as soon as they are in sync', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit({ driver: 'none' });
  await world.untilState(id, 'copying');
  t.match(world.hosts.starts, [{ cutover: 'explicit' }]);
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'done');
  t.same(world.hosts.cutovers, ['m1']);
  t.equal(world.driver.begun, 0);
});

t.test('a driver that fails is rolled back, and the migration is cancelled', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.driver.end(id, 'failed');
  const task = await world.untilState(id, 'failed');
  t.match(task.error, { code: 'ABORTED', message: /status 3/ });
  t.equal(world.driver.rollbacks, 1);
  t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
  t.equal(world.hosts.starts.length, 1, 'a VM is not moved twice');
});

t.test('a rollback that fails is said in the error', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.driver.rollbackError = new MigrateFsError('ABORTED', 'the rollback command ended with status 9');
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.driver.end(id, 'failed');
  const task = await world.untilState(id, 'failed');
  t.match(task.error?.message, /status 3; the rollback command ended with status 9$/);
});

t.test('a migration that fails is tried again, with pauses, three times', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  const times: number[] = [];
  for (const migration of ['m1', 'm2', 'm3']) {
    await world.untilState(id, 'copying');
    times.push(world.clock.now());
    world.hosts.set(migration, 'failed', { error: FAILURE });
    await world.until(() => world.scheduler.get(id).state !== 'copying', 'it is noticed');
  }
  const task = world.scheduler.get(id);
  t.match(task, { state: 'failed', attempt: 3, error: { code: 'RESOURCE_EXHAUSTED' } });
  t.match(task.error?.message, 'the disk of b is full (attempt 3)');
  t.ok(times[1]! - times[0]! >= 2000 && times[2]! - times[1]! >= 4000, `${times}`);
  const requests = world.hosts.starts.map(({ requestId }) => requestId);
  t.equal(new Set(requests).size, 3, 'each attempt is one of its own');
});

t.test('what no attempt would change is not tried again', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.fail('a', 'start', 'ALREADY_EXISTS');
  const { id } = await world.submit();
  const task = await world.untilState(id, 'failed');
  t.match(task, { attempt: 1, error: { code: 'ALREADY_EXISTS' } });
});

t.test('a source whose clock is ahead takes a deadline as it is meant', async (t) => {
  const world = await SchedulerWorld.open(t);
  const [ahead, left] = [3_600_000, 600_000];
  const refusals: unknown[] = [];
  const deadlines: (number | undefined)[] = [];
  const start = world.hosts.start.bind(world.hosts);
  world.hosts.start = async (host, order, signal) => {
    const terms = { target: 'b:7071', netLimit: UNLIMITED, diskLimit: UNLIMITED };
    const now = millis(world.clock.wall() + ahead);
    try {
      deadlines.push(migrationRequestOf(startRequestMessage({ ...order, ...terms }), now).deadline);
    } catch (error) {
      refusals.push(error);
      throw error;
    }
    return start(host, order, signal);
  };
  const { id } = await world.submit({ deadline: millis(BEGIN + left) });
  await world.until(() => deadlines.length + refusals.length > 0, 'it is asked');
  t.same(refusals, []);
  t.same(deadlines, [BEGIN + left + ahead]);
  await world.untilState(id, 'copying');
  const late = await world.submit({
    ...{ vm: 'vm2', images: ['vm2.raw'], insist: true },
    deadline: millis(world.clock.wall() + 1050),
  });
  await world.untilState(late.id, 'copying');
  t.same(refusals, []);
});

t.test('a start without an answer is repeated as the same request', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.fail('a', 'start', 'DEADLINE_EXCEEDED', 1, true);
  const { id } = await world.submit();
  const task = await world.untilState(id, 'copying');
  t.equal(task.attempt, 1);
  t.equal(world.hosts.starts.length, 2);
  t.equal(world.hosts.starts[0]!.requestId, world.hosts.starts[1]!.requestId);
  t.equal(world.hosts.migrations.length, 1);
});

t.test('a source daemon that was restarted gets a second attempt', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.forget('a');
  await world.until(() => world.scheduler.get(id).attempt === 2, 'a second attempt');
  await world.untilState(id, 'copying');
  t.equal(world.hosts.migrations.length, 1);
  t.match(world.texts(id).join('\n'), /attempt 1 of 3 failed: a does not know the migration any more/);
});

t.test('a migration that the source forgot after the target took the images over is done', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.driver.end(id, 'moved');
  await world.untilState(id, 'finishing');
  world.hosts.unreachable('a', true);
  world.hosts.set('m1', 'completed');
  world.hosts.forget('a');
  world.hosts.unreachable('a', false);
  await world.untilState(id, 'done');
  t.equal(world.hosts.starts.length, 1);
});

t.test(
  'after the VM has moved, disks that were lost on the way are copied again without the driver',
  async (t) => {
    const world = await SchedulerWorld.open(t);
    const { id } = await world.submit();
    await world.untilState(id, 'copying');
    world.hosts.set('m1', 'mirroring');
    await world.untilState(id, 'handing-over');
    world.driver.end(id, 'moved');
    await world.untilState(id, 'finishing');
    world.hosts.forget('a');
    await world.until(() => world.hosts.migrations.length === 1, 'a second migration');
    await world.untilState(id, 'copying');
    world.hosts.set('m2', 'mirroring');
    await world.untilState(id, 'done');
    t.equal(world.driver.begun, 1, 'the VM was moved once');
  },
);

t.test('a daemon that cannot be reached is asked again, and the task says so', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.unreachable('a', true);
  await world.until(() => /cannot be asked/.test(world.scheduler.get(id).reason), 'it is noted');
  world.hosts.unreachable('a', false);
  await world.until(() => /answers again/.test(world.scheduler.get(id).reason), 'it is noted');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  t.equal(world.hosts.starts.length, 1);
});

t.test('a migration that an operator cancels ends the task', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'cancelled');
  const task = await world.untilState(id, 'failed');
  t.match(task.error, { code: 'CANCELLED', message: /cancelled at a/ });
});

t.test('a migration that fails while the driver runs ends the driver and is rolled back', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.hosts.set('m1', 'failed', { error: FAILURE });
  const task = await world.untilState(id, 'failed');
  t.match(task.error?.message, /ended while the VM was being moved: the disk of b is full/);
  t.equal([...world.driver.moves.values()][0]!.state, 'stopped');
  t.equal(world.driver.rollbacks, 1);
});

/** A task that is being moved, and one of the same hosts that is in sync and waits for its place. */
const waiting = async (world: SchedulerWorld): Promise<[string, string, string]> => {
  const first = await world.submit();
  const second = await world.submit({ vm: 'vm2', images: ['vm2.raw'] });
  await world.untilState(first.id, 'copying');
  await world.untilState(second.id, 'copying');
  world.hosts.set(world.hosts.of('vm1.raw').snapshot.id, 'mirroring');
  await world.untilState(first.id, 'handing-over');
  const migration = world.hosts.of('vm2.raw').snapshot.id;
  world.hosts.set(migration, 'mirroring');
  await world.until(() => /waits for other moves/.test(world.scheduler.get(second.id).reason), 'it waits');
  return [first.id, second.id, migration];
};

t.test('one move at a time of a host; the next waits in sync', async (t) => {
  const world = await SchedulerWorld.open(t);
  const [first, second] = await waiting(world);
  await world.clock.advance(20_000);
  t.equal(world.driver.begun, 1, 'still');
  t.equal(world.scheduler.get(second).state, 'copying');
  world.driver.end(first, 'moved');
  await world.untilState(second, 'handing-over');
  t.equal(world.driver.begun, 2);
});

t.test(
  'disks that lose their target while the VM waits for its place are in sync again before it moves',
  async (t) => {
    const world = await SchedulerWorld.open(t);
    const [first, second, migration] = await waiting(world);
    world.hosts.set(migration, 'interrupted');
    await world.until(
      () => /has lost b/.test(world.scheduler.get(second).reason),
      'it is noted while it waits',
    );
    world.driver.end(first, 'moved');
    await world.untilState(first, 'done');
    t.equal(world.driver.begun, 1, 'its place is free, its disks are not in sync');
    world.hosts.set(migration, 'dirty-resend');
    await world.until(() => /copies again/.test(world.scheduler.get(second).reason), 'it is noted');
    t.equal(world.scheduler.get(second).state, 'copying');
    world.hosts.set(migration, 'mirroring');
    await world.untilState(second, 'handing-over');
    t.equal(world.driver.begun, 2);
  },
);

t.test('a source that cannot be asked is asked once more before the VM moves', async (t) => {
  const world = await SchedulerWorld.open(t);
  const [first, second, migration] = await waiting(world);
  world.hosts.unreachable('a', true);
  world.hosts.set(migration, 'interrupted');
  world.driver.end(first, 'moved');
  await world.clock.advance(60_000);
  t.equal(world.driver.begun, 1);
  world.hosts.set(migration, 'dirty-resend');
  world.hosts.unreachable('a', false);
  await world.until(() => /copies again/.test(world.scheduler.get(second).reason), 'it is noted');
  t.equal(world.driver.begun, 1);
});

t.test('a source that cannot be asked keeps no place of the target from others', async (t) => {
  const world = await SchedulerWorld.open(t, { limits: { perHost: 3, perLink: 3, share: 0.8 } });
  // The place of the target is asked for first: by its name.
  const inSync = async (image: string, source: string): Promise<string> => {
    world.hosts.put(source, image);
    const { id } = await world.submit({ vm: image, images: [image], source, target: 'a' });
    await world.untilState(id, 'copying');
    world.hosts.set(world.hosts.of(image).snapshot.id, 'mirroring');
    return id;
  };
  const waits = (id: string) => (): boolean => /waits for other moves/.test(world.scheduler.get(id).reason);
  const first = await inSync('vm5.raw', 'c');
  await world.untilState(first, 'handing-over');
  const second = await inSync('vm6.raw', 'b');
  await world.until(waits(second), 'the second waits');
  const third = await inSync('vm7.raw', 'c');
  await world.until(waits(third), 'the third waits');
  world.hosts.unreachable('b', true);
  world.driver.end(first, 'moved');
  await world.untilState(third, 'handing-over');
  t.equal(world.scheduler.get(second).state, 'copying', 'although its turn was earlier');
  world.hosts.unreachable('b', false);
  world.driver.end(third, 'moved');
  await world.untilState(second, 'handing-over');
});

for (const state of ['cancelled', 'completed'] as const)
  t.test(`a migration that is ${state} while the VM waits for its place: it does not move`, async (t) => {
    const world = await SchedulerWorld.open(t);
    const [first, second, migration] = await waiting(world);
    world.hosts.set(migration, state);
    world.driver.end(first, 'moved');
    await world.untilState(second, state === 'completed' ? 'done' : 'failed');
    t.equal(world.driver.begun, 1);
  });

for (const state of ['interrupted', 'paused'] as const)
  t.test(`disks that are ${state} while the VM is being moved: it stays on the source`, async (t) => {
    const world = await SchedulerWorld.open(t);
    const { id } = await world.submit();
    await world.untilState(id, 'copying');
    world.hosts.set('m1', 'mirroring');
    await world.untilState(id, 'handing-over');
    world.hosts.set('m1', state);
    const task = await world.untilState(id, 'failed');
    t.match(task.error?.message, `not in sync any more while the VM was being moved (${state})`);
    t.equal([...world.driver.moves.values()][0]!.state, 'stopped');
    t.equal(world.driver.rollbacks, 1);
  });

t.test('a deadline that passes before the start fails the task with why it waited', async (t) => {
  const world = await SchedulerWorld.open(t);
  const first = await world.submit({ driver: 'none' });
  const second = await world.submit({ vm: 'vm2', images: ['vm2.raw'], driver: 'none' });
  await world.untilState(first.id, 'copying');
  await world.untilState(second.id, 'copying');
  // Both places of the host are taken, and stay so.
  const third = await world.submit({
    vm: 'vm3',
    images: ['vm3.raw'],
    deadline: millis(BEGIN + 120_000),
  });
  const task = await world.untilState(third.id, 'failed');
  t.match(task.error, { code: 'DEADLINE_EXCEEDED', message: /^its deadline passed before it could start: / });
  t.ok(world.clock.wall() >= BEGIN + 120_000);
});

t.test('a driver that fails after the VM has written on the target: nothing is undone there', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.hosts.set('m1', 'completed');
  world.driver.end(id, 'failed');
  const task = await world.untilState(id, 'failed');
  t.equal(world.driver.rollbacks, 0, 'at the source its disks are fenced');
  t.match(task.error?.message, /status 3; b owns the images all the same: the VM has to run there/);
});

t.test('a driver that cannot tell, and a VM that has written on the target: the task is done', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  world.hosts.set('m1', 'completed');
  world.driver.stopError = new MigrateFsError('UNAVAILABLE', 'how it ended is not recorded');
  world.driver.end(id, 'failed');
  await world.untilState(id, 'done');
  t.match(world.texts(id).join('\n'), /the VM has written on b \(how it ended is not recorded\)/);
});

t.test('what the driver reports of the move is shown, and how long the VM stood still is kept', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  const shown: (number | undefined)[] = [];
  world.scheduler.watch(({ ramLeft }) => void shown.push(ramLeft));
  for (let left = 100; left > 0; left--) {
    world.driver.report({ ramSent: bytes(1000 - left), ramLeft: bytes(left) });
    await world.clock.advance(50);
  }
  t.match(world.scheduler.get(id), { ramSent: 990, ramLeft: 10 });
  t.same(shown.filter(Number.isInteger), [100, 90, 80, 70, 60, 50, 40, 30, 20, 10], 'twice a second');
  world.driver.report({ ramSent: bytes(1000), ramLeft: bytes(0), vmDowntime: millis(37) });
  world.driver.end(id, 'moved');
  await world.untilState(id, 'done');
  await world.restart();
  const task = world.scheduler.get(id);
  t.match(task, { vmDowntime: 37 });
  t.equal(task.ramLeft, undefined, 'which is over');
  t.match(
    world.texts(id).join('\n'),
    /the driver has moved the VM, which stood still for 37 ms; b takes the images over at its first write, or after 5\.0 s$/m,
  );
});

t.test('a target that is lost while it is copied to, and one that is back, are said', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  const error = { code: 'UNAVAILABLE', message: 'no route to b' } as const;
  world.hosts.set('m1', 'interrupted', { error });
  await world.until(() => /lost b/.test(world.scheduler.get(id).reason), 'it is said');
  t.equal(world.scheduler.get(id).reason, 'a has lost b and tries again: no route to b');
  world.hosts.set('m1', 'bulk-copy');
  await world.until(() => world.scheduler.get(id).reason === 'copies again', 'it is said');
  t.equal(world.scheduler.get(id).state, 'copying');
});
