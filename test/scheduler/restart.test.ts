import fc from 'fast-check';
import t from 'tap';
import type { HypervisorDriver } from '../../src/broker/scheduler/hypervisor-driver.js';
import { QueueError, TaskStore } from '../../src/broker/scheduler/task-store.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { TASK_EDGES } from '../../src/leaves/scheduler.js';
import { SchedulerWorld } from '../support/scheduler-world.js';
import type { Teardown } from '../support/scratch.js';

/** A task of a and one of c, both copying to b. */
const twoSources = async (t: Teardown) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.put('c', 'vm9.raw');
  const first = await world.submit();
  const other = await world.submit({ vm: 'vm9', images: ['vm9.raw'], source: 'c' });
  await world.untilState(first.id, 'copying');
  await world.untilState(other.id, 'copying');
  return { world, first, other };
};

t.test('a new scheduler goes on in every state; nothing is done twice', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit();
  await world.restart();
  await world.untilState(id, 'copying');
  await world.restart();
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  await world.restart();
  await world.until(() => world.driver.begun === 1, 'the driver is found');
  await world.restart();
  world.driver.end(id, 'moved');
  await world.untilState(id, 'finishing');
  await world.restart();
  await world.untilState(id, 'done');
  await world.restart();
  t.equal(world.scheduler.get(id).state, 'done');
  t.same(world.states(id), ['waiting', 'starting', 'copying', 'handing-over', 'finishing', 'done']);
  t.equal(world.driver.begun, 1);
  t.equal(world.hosts.migrations.length, 1);
});

t.test('a move that a new scheduler finds under way keeps its place', async (t) => {
  const world = await SchedulerWorld.open(t);
  const first = await world.submit();
  const second = await world.submit({ vm: 'vm2', images: ['vm2.raw'] });
  await world.untilState(first.id, 'copying');
  await world.untilState(second.id, 'copying');
  world.hosts.set(world.hosts.of('vm1.raw').snapshot.id, 'mirroring');
  await world.untilState(first.id, 'handing-over');
  await world.restart();
  world.hosts.set(world.hosts.of('vm2.raw').snapshot.id, 'mirroring');
  await world.until(() => /waits for other moves/.test(world.scheduler.get(second.id).reason), 'it waits');
  await world.clock.advance(20_000);
  t.equal(world.driver.begun, 1);
  world.driver.end(first.id, 'moved');
  await world.untilState(second.id, 'handing-over');
});

t.test('one whose source cannot be asked keeps no place of the target from others', async (t) => {
  const { world, first, other } = await twoSources(t);
  world.hosts.set(world.hosts.of('vm1.raw').snapshot.id, 'mirroring');
  await world.untilState(first.id, 'handing-over');
  world.hosts.unreachable('a', true);
  await world.restart();
  let asked = false;
  const watch = world.hosts.watch.bind(world.hosts);
  world.hosts.watch = (host, ...rest) => {
    asked ||= host === 'a';
    return watch(host, ...rest);
  };
  await world.until(() => asked, 'it has its places');
  world.hosts.set(world.hosts.of('vm9.raw').snapshot.id, 'mirroring');
  await world.untilState(other.id, 'handing-over');
  world.driver.end(other.id, 'moved');
  world.hosts.unreachable('a', false);
  world.driver.end(first.id, 'moved');
  await world.untilState(first.id, 'done');
  t.equal(world.driver.begun, 2);
});

t.test(
  'a move that was put on disk and not begun does not begin with disks that are not in sync',
  async (t) => {
    const world = await SchedulerWorld.open(t);
    const { id } = await world.submit();
    await world.untilState(id, 'copying');
    world.hosts.set('m1', 'mirroring');
    await world.untilState(id, 'handing-over');
    await world.scheduler.close();
    // As if it had ended between the two.
    world.driver.moves.clear();
    world.driver.begun = 0;
    world.hosts.set('m1', 'interrupted');
    world.begin();
    const task = await world.untilState(id, 'failed');
    t.match(task.error?.message, /not in sync any more/);
    t.equal(world.driver.begun, 0);
  },
);

t.test('a host that the topology has lost harms nobody else', async (t) => {
  const { world } = await twoSources(t);
  world.hosts.paths.clear();
  world.hosts.controlAddress = (host) => {
    if (host === 'a') throw new MigrateFsError('INVALID_ARGUMENT', `no host '${host}'`);
    return `${host}:7070`;
  };
  await world.restart();
  await world.until(() => world.hosts.paths.size > 0, 'the other one is told its path');
  t.same([...world.hosts.paths.keys()], [world.hosts.of('vm9.raw').snapshot.id]);
});

t.test(
  'a driver that the configuration has lost: nothing is moved, and the migration is cancelled',
  async (t) => {
    const drivers = new Map<string, HypervisorDriver>();
    const world = await SchedulerWorld.open(t, { drivers });
    drivers.set('fake', world.driver);
    const { id } = await world.submit();
    await world.untilState(id, 'copying');
    drivers.clear();
    await world.restart();
    world.hosts.set('m1', 'mirroring');
    const { error } = await world.untilState(id, 'failed');
    t.equal(error?.message, "the scheduler's configuration has no driver 'fake' any more");
    t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
    t.equal(world.driver.begun, 0);
  },
);

t.test('a driver that is lost while it moves the VM: the images are left alone', async (t) => {
  const drivers = new Map<string, HypervisorDriver>();
  const world = await SchedulerWorld.open(t, { drivers });
  drivers.set('fake', world.driver);
  const { id } = await world.submit();
  await world.untilState(id, 'copying');
  world.hosts.set('m1', 'mirroring');
  await world.untilState(id, 'handing-over');
  drivers.clear();
  await world.restart();
  const { error } = await world.untilState(id, 'failed');
  t.match(error?.message, /no driver 'fake' any more; whether the driver had moved the VM is not known/);
  t.equal(world.hosts.find('m1').snapshot.state, 'mirroring');
  t.same(
    world.logged.filter(({ level }) => level === 'error'),
    [],
    'and is no defect',
  );
});

t.test('a queue that cannot be written delays a task and changes nothing else', async (t) => {
  const world = await SchedulerWorld.open(t);
  const { id } = await world.submit({ driver: 'none' });
  await world.untilState(id, 'copying');
  const { save } = TaskStore.prototype;
  t.teardown(() => Object.assign(TaskStore.prototype, { save }));
  let failures = Number.POSITIVE_INFINITY;
  TaskStore.prototype.save = function (...args) {
    if (failures-- > 0) throw new QueueError('no space');
    save.apply(this, args);
  };
  world.hosts.set('m1', 'mirroring');
  await world.clock.advance(60_000);
  t.equal(world.scheduler.get(id).state, 'copying');
  t.same(world.hosts.cutovers, [], 'no step before it is on disk');
  const complaints = world.logged.filter(({ message }) => /cannot be recorded/.test(message)).length;
  t.ok(complaints > 0 && complaints <= 13, `${complaints} complaints in a minute`);
  const full = { code: 'RESOURCE_EXHAUSTED', message: /^no space: make room/ };
  await t.rejects(world.submit({ vm: 'vm2', images: ['vm2.raw'] }), full);
  t.throws(() => world.scheduler.cancel(id), full);
  // Room for what comes after the next step would do as much harm as none.
  failures = 1;
  await world.untilState(id, 'done');
  t.equal(world.hosts.starts.length, 1, 'and the migration went on');
});

t.test('a start whose answer was lost with the scheduler makes no second migration', async (t) => {
  const world = await SchedulerWorld.open(t);
  const start = world.hosts.start.bind(world.hosts);
  world.hosts.start = async (host, order, signal) => {
    await start(host, order, signal);
    return new Promise((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  };
  const { id } = await world.submit();
  await world.until(() => world.hosts.migrations.length === 1, 'it reached the daemon');
  world.hosts.start = start;
  await world.restart();
  await world.untilState(id, 'copying');
  t.equal(world.hosts.migrations.length, 1);
  t.equal(world.scheduler.get(id).attempt, 1);
});

t.test('whatever fails and whenever the scheduler ends: legal edges, one end, one move', async (t) => {
  type Event =
    | 'restart'
    | 'in-sync'
    | 'moved'
    | 'not-moved'
    | 'completed'
    | 'failed'
    | 'forget'
    | 'down'
    | 'up'
    | 'cancel';
  const events: fc.Arbitrary<Event> = fc.constantFrom(
    'restart',
    'in-sync',
    'moved',
    'not-moved',
    'completed',
    'failed',
    'forget',
    'down',
    'up',
    'cancel',
  );
  const apply = async (world: SchedulerWorld, id: string, event: Event): Promise<void> => {
    const migration = world.hosts.of('vm1.raw')?.snapshot;
    const moving = [...world.driver.moves.values()].some(({ state }) => state === 'running');
    if (event === 'restart') await world.restart();
    else if (event === 'in-sync' && migration?.state === 'bulk-copy')
      world.hosts.set(migration.id, 'mirroring');
    else if (event === 'moved' && moving) world.driver.end(id, 'moved');
    else if (event === 'not-moved' && moving) world.driver.end(id, 'failed');
    else if (event === 'completed' && migration?.state === 'mirroring' && !moving && world.driver.begun > 0)
      world.hosts.set(migration.id, 'completed');
    else if (event === 'failed' && migration && ['bulk-copy', 'mirroring'].includes(migration.state))
      world.hosts.set(migration.id, 'failed', { error: { code: 'UNAVAILABLE', message: 'as told' } });
    else if (event === 'forget') world.hosts.forget('a');
    else if (event === 'down') world.hosts.unreachable('a', true);
    else if (event === 'up') world.hosts.unreachable('a', false);
    else if (event === 'cancel')
      try {
        world.scheduler.cancel(id);
      } catch {
        // It has moved or ended.
      }
    await world.clock.advance(2_000);
  };
  const result = await fc.check(
    fc.asyncProperty(fc.array(events, { maxLength: 14 }), async (sequence) => {
      const undo: (() => unknown)[] = [];
      const world = await SchedulerWorld.open({ teardown: (step) => void undo.push(step) });
      try {
        const { id } = await world.submit();
        for (const event of sequence) await apply(world, id, event);
        // From here on everything works.
        world.hosts.unreachable('a', false);
        const ended = (): boolean => TASK_EDGES[world.scheduler.get(id).state].length === 0;
        await world.until(() => {
          const migration = world.hosts.of('vm1.raw')?.snapshot;
          if (migration?.state === 'bulk-copy') world.hosts.set(migration.id, 'mirroring');
          for (const move of world.driver.moves.values())
            if (move.state === 'running') world.driver.end(id, 'moved');
          return ended();
        }, 'the task ends');
        const states = world.states(id);
        const ends = states.filter((state) => TASK_EDGES[state as 'done'].length === 0);
        const legal = states.every(
          (state, at) => at === 0 || TASK_EDGES[states[at - 1] as 'done'].includes(state as 'done'),
        );
        const moved = [...world.driver.moves.values()].filter(({ state }) => state === 'moved').length;
        const left = world.hosts.migrations.filter(
          ({ snapshot }) => !['completed', 'cancelled', 'failed'].includes(snapshot.state),
        );
        const state = world.scheduler.get(id).state;
        const story = `${sequence.join(' ')}: ${world.texts(id).join(' | ')}`;
        if (ends.length !== 1) throw new Error(`${ends.length} ends: ${story}`);
        if (!legal) throw new Error(`an illegal edge: ${story}`);
        if (moved > 1) throw new Error(`moved ${moved} times: ${story}`);
        if (left.length > 0 && !/could not be cancelled/.test(story))
          throw new Error(`a migration is left: ${story}`);
        if (state === 'cancelled' && moved > 0) throw new Error(`cancelled, and the VM has moved: ${story}`);
      } finally {
        for (const step of undo.reverse()) await step();
      }
    }),
    { numRuns: 25, interruptAfterTimeLimit: 8_000 },
  );
  t.notOk(result.failed, fc.defaultReportMessage(result) ?? 'one end, whatever happens');
  t.ok(result.numRuns > 0, `${result.numRuns} sequences of up to 14 events`);
});
