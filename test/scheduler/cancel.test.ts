import t from 'tap';
import { TaskStore } from '../../src/broker/scheduler/task-store.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { SchedulerWorld } from '../support/scheduler-world.js';

/** Brings task 1 into a state in which it can be cancelled. */
const bring = async (world: SchedulerWorld, state: string): Promise<string> => {
  const { id } = await world.submit(
    state === 'waiting' ? { notBefore: (world.clock.wall() + 60_000) as never } : {},
  );
  if (state === 'waiting') return id;
  await world.untilState(id, 'copying');
  if (state === 'copying') return id;
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  return id;
};

t.test('cancelled while it waits: nothing has begun', async (t) => {
  const world = await SchedulerWorld.open(t);
  const id = await bring(world, 'waiting');
  t.equal(world.scheduler.cancel(id).state, 'cancelled', 'at once');
  await world.clock.advance(120_000);
  t.equal(world.hosts.starts.length, 0);
});

t.test('cancelled while it copies: the migration is cancelled', async (t) => {
  const world = await SchedulerWorld.open(t);
  const id = await bring(world, 'copying');
  world.scheduler.cancel(id);
  await world.untilState(id, 'cancelled');
  t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
  t.equal(world.driver.rollbacks, 0, 'no driver was begun');
});

t.test(
  'cancelled while the driver runs: the driver is ended, rolled back, and the migration cancelled',
  async (t) => {
    const world = await SchedulerWorld.open(t);
    const id = await bring(world, 'handing-over');
    world.scheduler.cancel(id);
    await world.untilState(id, 'cancelled');
    t.equal([...world.driver.moves.values()][0]!.state, 'stopped');
    t.equal(world.driver.rollbacks, 1);
    t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
  },
);

t.test('cancelled, and nobody can tell whether the VM has moved: its images are left alone', async (t) => {
  const world = await SchedulerWorld.open(t);
  const id = await bring(world, 'handing-over');
  world.driver.stopError = new MigrateFsError('UNAVAILABLE', 'no monitor answers');
  world.scheduler.cancel(id);
  await world.untilState(id, 'failed');
  t.equal(world.hosts.find('m1').snapshot.state, 'mirroring', 'not cancelled');
  t.equal(world.driver.rollbacks, 0);
  t.match(world.texts(id).join('\n'), /not known \(no monitor answers\): see where it runs.*m1/);
});

t.test('cancelled when the driver has just succeeded: too late, it is finished instead', async (t) => {
  const world = await SchedulerWorld.open(t);
  const id = await bring(world, 'handing-over');
  // The move has succeeded, and nobody has looked yet.
  [...world.driver.moves.values()][0]!.state = 'moved';
  world.scheduler.cancel(id);
  await world.untilState(id, 'done');
  t.equal(world.driver.rollbacks, 0);
  t.match(world.texts(id).join('\n'), /too late to cancel: the driver ha[sd] moved the VM/);
});

t.test(
  'cancelled, and the driver succeeds in the moment in which it is ended: finished instead',
  async (t) => {
    const world = await SchedulerWorld.open(t);
    const id = await bring(world, 'handing-over');
    world.driver.succeedsAtStop = true;
    world.scheduler.cancel(id);
    await world.untilState(id, 'done');
    t.equal(world.driver.rollbacks, 0);
    t.same(world.hosts.cutovers, ['m1']);
  },
);

t.test('a cancellation that was answered counts before a report that comes in with it', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit({ driver: 'none' });
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  world.scheduler.cancel(id);
  await world.untilState(id, 'cancelled');
  t.same(world.hosts.cutovers, []);
});

t.test('cancelled while the start is under way: what the start made is cancelled', async (t) => {
  const world = await SchedulerWorld.open(t);
  let answer = (): void => {};
  const held = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const start = world.hosts.start.bind(world.hosts);
  world.hosts.start = async (...args) => {
    const snapshot = await start(...args);
    await held;
    return snapshot;
  };
  const { id } = await world.submit();
  await world.untilState(id, 'starting');
  t.equal(world.scheduler.cancel(id).state, 'starting', 'answered at once');
  answer();
  await world.untilState(id, 'cancelled');
  t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
});

for (const state of ['starting', 'copying'] as const)
  t.test(`cancelled when its ${state} has failed, before that is dealt with: no other attempt`, async (t) => {
    const world = await SchedulerWorld.open(t);
    if (state === 'starting') world.hosts.fail('a', 'start', 'RESOURCE_EXHAUSTED');
    const { id } = await world.submit();
    let answer = (): void => {};
    const held = new Promise<void>((resolve) => {
      answer = resolve;
    });
    let asked = false;
    const describe = world.hosts.describe.bind(world.hosts);
    world.hosts.describe = async (...args) => {
      asked = true;
      await held;
      return describe(...args);
    };
    if (state === 'copying') {
      await world.untilState(id, 'copying');
      world.hosts.set('m1', 'failed', { error: { code: 'UNAVAILABLE', message: 'as told' } });
    }
    await world.until(() => asked, 'the target is asked whether it has the images');
    t.equal(world.scheduler.cancel(id).state, state);
    answer();
    await world.untilState(id, 'cancelled');
    t.equal(world.hosts.migrations.length, state === 'starting' ? 0 : 1);
  });

t.test('a wish that is on disk with a task that waits is no cancellation', async (t) => {
  const world = await SchedulerWorld.open(t);
  const id = await bring(world, 'waiting');
  const { tasks } = TaskStore.prototype;
  t.teardown(() => Object.assign(TaskStore.prototype, { tasks }));
  TaskStore.prototype.tasks = function () {
    return tasks.call(this).map((task) => ({ ...task, cancelWanted: true }));
  };
  await world.restart();
  t.equal(world.scheduler.cancel(id).state, 'cancelled');
});

t.test('cancelled after a start without an answer: the migration is looked for', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.fail('a', 'start', 'UNAVAILABLE', 1, true);
  const { id } = await world.submit();
  await world.until(() => world.hosts.migrations.length === 1, 'it reached the daemon');
  await world.untilState(id, 'waiting');
  world.scheduler.cancel(id);
  await world.untilState(id, 'cancelled');
  t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
});

t.test(
  'cancelled while its daemon cannot be reached: the answer does not wait, and the task ends with a remedy',
  async (t) => {
    const world = await SchedulerWorld.open(t);
    const id = await bring(world, 'copying');
    world.hosts.unreachable('a', true);
    world.scheduler.cancel(id);
    const task = await world.untilState(id, 'cancelled');
    t.match(task.error?.message, /migration m1 could not be cancelled .* cancel it there/);
  },
);

t.test('cancelling twice is no error; what has moved, or ended, is not cancelled', async (t) => {
  const world = await SchedulerWorld.open(t);
  const id = await bring(world, 'copying');
  world.scheduler.cancel(id);
  world.scheduler.cancel(id);
  await world.untilState(id, 'cancelled');
  t.equal(world.scheduler.cancel(id).state, 'cancelled');
  const second = await world.submit({ vm: 'vm2', images: ['vm2.raw'] });
  await world.untilState(second.id, 'copying');
  world.hosts.set('m2', 'mirroring');
  await world.untilState(second.id, 'handing-over');
  world.driver.end(second.id, 'moved');
  await world.untilState(second.id, 'finishing');
  t.throws(() => world.scheduler.cancel(second.id), {
    code: 'FAILED_PRECONDITION',
    message: `task ${second.id} cannot be cancelled any more: its VM runs on b`,
  });
  await world.untilState(second.id, 'done');
  t.throws(() => world.scheduler.cancel(second.id), {
    code: 'FAILED_PRECONDITION',
    message: /is done already/,
  });
  t.throws(() => world.scheduler.cancel('t9'), { code: 'NOT_FOUND' });
});

t.test('a cancellation is on disk: the next scheduler makes an end of it', async (t) => {
  const world = await SchedulerWorld.open(t);
  const id = await bring(world, 'handing-over');
  world.scheduler.cancel(id);
  await world.restart();
  await world.untilState(id, 'cancelled');
  t.equal(world.driver.rollbacks, 1);
  t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
});
