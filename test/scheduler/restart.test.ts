import fc from 'fast-check';
import t from 'tap';
import { TASK_EDGES } from '../../src/leaves/scheduler.js';
import { SchedulerWorld } from '../support/scheduler-world.js';

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
  await fc.assert(
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
  t.pass('sequences of up to 14 events');
});
