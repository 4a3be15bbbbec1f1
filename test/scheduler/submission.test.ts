import t from 'tap';
import { type SubmitOptions, submitMessage, taskRequestOf } from '../../src/control/scheduler-message.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { bytes, generation, millis } from '../../src/leaves/units.js';
import { BEGIN, requestExample, SchedulerWorld } from '../support/scheduler-world.js';

t.test('refusals name what is wrong, with numbers', async (t) => {
  const world = await SchedulerWorld.open(t, { tasksMax: 2 });
  const refused = (
    request: Parameters<SchedulerWorld['submit']>[0],
    code: string,
    message: RegExp | string,
  ) => t.rejects(world.submit(request), { code, message });
  await refused({ target: 'z' }, 'INVALID_ARGUMENT', /target host: .*'z'/);
  await refused({ target: 'a' }, 'INVALID_ARGUMENT', /same host, 'a'/);
  await refused({ driver: 'xen' }, 'INVALID_ARGUMENT', /no driver 'xen': give 'fake' or 'none'$/);
  await refused({ deadline: millis(BEGIN - 60_000) }, 'INVALID_ARGUMENT', /is 1m in the past/);
  await refused(
    { deadline: millis(BEGIN + 1000), notBefore: millis(BEGIN + 1000) },
    'INVALID_ARGUMENT',
    /leaves no time/,
  );
  await refused(
    { images: ['vm1.raw', 'vm2.raw', 'vm1.raw'] },
    'INVALID_ARGUMENT',
    /"vm1\.raw" is given twice/,
  );
  for (const name of ['a\nb.raw', 'a\u0085b.raw'])
    await refused(
      { images: [name] },
      'INVALID_ARGUMENT',
      /control character .*: rename it, or .* driver 'none'/,
    );
  await refused({ danger: 4, warning: 3 }, 'INVALID_ARGUMENT', /warning ratio 3 is below the danger ratio 4/);
  await refused({ images: ['gone.raw'] }, 'NOT_FOUND', /a: no image gone.raw/);
  world.hosts.put('a', 'busy.raw', { migrationId: 'm77' });
  await refused({ images: ['busy.raw'] }, 'FAILED_PRECONDITION', /migrating already: migration m77/);
  world.hosts.put('a', 'moved.raw', { role: 'fenced', peer: 'b:7071', generation: generation(1) });
  await refused({ images: ['moved.raw'] }, 'FAILED_PRECONDITION', /was moved from a: b:7071 owns it/);
  // 10 MB at 0.8 of 1 Gbit/s take 100 ms, and the VM a second.
  await refused(
    { deadline: millis(BEGIN + 1050) },
    'FAILED_PRECONDITION',
    /10\.0 MB at 100 MB\/s .* too late/,
  );
  world.hosts.unreachable('a', true);
  await refused({}, 'UNAVAILABLE', /cannot reach a/);
  world.hosts.unreachable('a', false);
  const { id } = await world.submit();
  await refused({ vm: 'other' }, 'FAILED_PRECONDITION', new RegExp(`belongs to task ${id} already`));
  await world.submit({ vm: 'vm2', images: ['vm2.raw'] });
  await refused({ vm: 'vm3', images: ['vm3.raw'] }, 'RESOURCE_EXHAUSTED', /^2 tasks are in the queue/);
  t.equal(world.scheduler.list({ states: [], limit: 10 }).tasks.length, 2);
});

t.test('an instant that no date can show is refused', async (t) => {
  const requestOf = (options: Partial<SubmitOptions>) =>
    taskRequestOf(submitMessage({ ...requestExample, ...options }), millis(BEGIN));
  const [last, beyond] = [millis(8.64e15), millis(8.64e15 + 1)];
  for (const key of ['notBefore', 'deadline'] as const) {
    t.equal(requestOf({ [key]: last })[key], last);
    for (const options of [{ [key]: beyond }, { [`${key}After`]: last }])
      t.throws(() => requestOf(options), {
        code: 'INVALID_ARGUMENT',
        message: /^(not_before|deadline) in .* is no date/,
      });
  }
});

t.test('a name with a newline can be moved where no driver has to be told it', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.put('a', 'a\nb.raw');
  const { id } = await world.submit({ images: ['a\nb.raw'], driver: 'none' });
  await world.untilState(id, 'copying');
});

t.test('who insists is taken, flagged, and started after its deadline if need be', async (t) => {
  const world = await SchedulerWorld.open(t);
  const task = await world.submit({ deadline: millis(BEGIN + 1050), insist: true });
  t.equal(task.late, true);
  t.match(task.admission, /too late/);
  await world.untilState(task.id, 'copying');
  t.match(world.texts(task.id).join('\n'), /starts at priority 0: its deadline cannot be met/);
});

t.test('G5: what waits for its next attempt keeps its promise: nobody is admitted over it', async (t) => {
  const world = await SchedulerWorld.open(t);
  // At 100 MB/s that admission counts on: 240 s of 300, and 180 s of 240.
  world.hosts.put('a', 'vm1.raw', { allocated: bytes(24e9) });
  world.hosts.put('a', 'vm2.raw', { allocated: bytes(18e9) });
  world.hosts.fail('a', 'start', 'RESOURCE_EXHAUSTED');
  const { id } = await world.submit({ deadline: millis(BEGIN + 300_000) });
  const failed = (): boolean => /^attempt 1 of 3 failed/.test(world.scheduler.get(id).reason);
  await world.until(failed, 'the first attempt has failed');
  await t.rejects(world.submit({ vm: 'vm2', images: ['vm2.raw'], deadline: millis(BEGIN + 240_000) }), {
    code: 'FAILED_PRECONDITION',
    message: new RegExp(`${id} would miss`),
  });
  await world.clock.advance(1000);
  t.ok(failed(), 'and its reason is the one that says when it is tried again');
  await world.untilState(id, 'copying');
});

t.test('a clock that is set back does not keep the next attempt waiting', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.fail('a', 'start', 'RESOURCE_EXHAUSTED');
  const { id } = await world.submit();
  await world.until(() => /^attempt 1 of 3/.test(world.scheduler.get(id).reason), 'one has failed');
  const began = world.clock.now();
  world.clock.wallAhead = -3_600_000;
  await world.untilState(id, 'copying');
  t.ok(world.clock.now() - began < 60_000, `${world.clock.now() - began} ms`);
});

t.test('the same request id makes one task, also after a restart and at the same time', async (t) => {
  const world = await SchedulerWorld.open(t);
  const request = { requestId: 'r1' };
  const [first, second] = await Promise.all([world.submit(request), world.submit(request)]);
  t.equal(first.id, second.id);
  await world.restart();
  t.equal((await world.submit(request)).id, first.id);
  await t.rejects(world.submit({ ...request, vm: 'other' }), { code: 'ALREADY_EXISTS', message: /task t1/ });
  t.equal(world.scheduler.list({ states: [], limit: 10 }).tasks.length, 1);
});

t.test('an image that two ask for at the same time gets one task', async (t) => {
  const world = await SchedulerWorld.open(t);
  const results = await Promise.allSettled([world.submit(), world.submit({ vm: 'other' })]);
  t.same(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
});

t.test('a hot path postpones while the laxity allows it, and the reason says how long', async (t) => {
  const world = await SchedulerWorld.open(t);
  const hot = {
    link: 'link-b',
    at: millis(BEGIN),
    saturated: true,
    hot: true,
    rate: 120e6,
    capacity: 125e6 as never,
    source: 'prometheus query tor',
  };
  world.hotSpots.set([hot]);
  const { id } = await world.submit({ deadline: millis(BEGIN + 600_000) });
  await world.until(() => /link-b is hot/.test(world.scheduler.get(id).reason), 'it is postponed');
  await world.clock.advance(120_000);
  t.equal(world.scheduler.get(id).state, 'waiting');
  const notes = world.texts(id).filter((text) => /link-b is hot/.test(text));
  t.match(
    notes[0],
    /120 MB\/s of 125 MB\/s, prometheus query tor\), waits until 12:0\d:\d\dZ at the latest; laxity \d+\.\d/,
  );
  t.ok(notes.length <= 4, `recorded when it changes, not at each plan: ${notes.length} times in two minutes`);
  world.hotSpots.set([{ ...hot, saturated: false, hot: false }]);
  await world.untilState(id, 'copying');
});

t.test(
  'brokers are told their paths and whom they share them with, and what they decide is recorded',
  async (t) => {
    const world = await SchedulerWorld.open(t);
    const first = await world.submit();
    const second = await world.submit({ vm: 'vm2', images: ['vm2.raw'], target: 'c' });
    await world.untilState(first.id, 'copying');
    await world.untilState(second.id, 'copying');
    const { snapshot } = world.hosts.of('vm1.raw');
    const other = world.hosts.of('vm2.raw').snapshot.id;
    await world.until(() => world.hosts.paths.get(snapshot.id)?.[0]?.sharers.length === 1, 'it is told');
    t.match(world.hosts.paths.get(snapshot.id), [
      { link: 'link-a', sharers: [{ server: 'a:7070', migrationId: other }] },
      { link: 'link-b', sharers: [] },
    ]);
    const broker = {
      migrationId: snapshot.id,
      zone: 'calm',
      netLimit: 41e6,
      diskLimit: Number.POSITIVE_INFINITY,
      hotLinks: ['link-b'],
      askedBy: [],
      reason: 'reduced to 41 MB/s: link-b hot, laxity 4.2',
      decisions: 3,
    };
    world.hosts.brokers.set(snapshot.id, broker as never);
    const noted = (): number =>
      world.texts(first.id).filter((text) => /^broker: reduced to 41/.test(text)).length;
    await world.until(() => noted() > 0, 'it is recorded');
    await world.clock.advance(60_000);
    t.equal(noted(), 1, 'once');
    world.hosts.set(other, 'cancelled');
    await world.until(() => world.hosts.paths.get(snapshot.id)?.[0]?.sharers.length === 0, 'it is told');
  },
);

t.test('the broker of another attempt is told its path though that is the same', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.put('c', 'vm9.raw');
  const { id } = await world.submit();
  await world.submit({ vm: 'vm9', images: ['vm9.raw'], source: 'c' });
  await world.until(() => world.hosts.paths.get('m1')?.[1]?.sharers.length === 1, 'both are told');
  let rounds = 0;
  world.hosts.broker = (host, _id, signal) =>
    new Promise<never>((_, reject) => {
      if (host !== 'c') return reject(new MigrateFsError('NOT_FOUND', 'no broker'));
      rounds++;
      signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
  await world.until(() => rounds > 0, 'a round has begun that takes long');
  world.hosts.set('m1', 'failed', { error: { code: 'UNAVAILABLE', message: 'as told' } });
  await world.until(() => world.scheduler.get(id).migrationId === 'm3', 'there is another attempt');
  t.equal(rounds, 1, 'before the next round');
  await world.until(() => world.hosts.paths.has('m3'), 'it is told');
  t.same(world.hosts.paths.get('m3'), world.hosts.paths.get('m1'));
});

t.test('a clock that is set back does not keep the reason of a task from being renewed', async (t) => {
  const world = await SchedulerWorld.open(t);
  const at = millis(BEGIN);
  world.hotSpots.set([
    { link: 'link-b', at, saturated: true, hot: true, rate: 120e6, source: 'prometheus query tor' },
  ]);
  const { id } = await world.submit({ deadline: millis(BEGIN + 3_600_000) });
  const hot = (): readonly string[] => world.texts(id).filter((text) => /link-b is hot/.test(text));
  await world.until(() => hot().length === 1, 'it is postponed');
  world.clock.wallAhead -= 1_800_000;
  await world.until(() => hot().length > 1, 'and says so with new numbers');
  t.ok(world.clock.now() < BEGIN + 180_000, `after ${world.clock.now() - BEGIN} ms`);
});
