import t from 'tap';
import { millis } from '../../src/leaves/units.js';
import { BEGIN, SchedulerWorld } from '../support/scheduler-world.js';

const MINUTE = 60_000;

/** When the source is asked, from then on. */
const asked = (world: SchedulerWorld): number[] => {
  const times: number[] = [];
  const start = world.hosts.start.bind(world.hosts);
  world.hosts.start = async (...args) => {
    times.push(world.clock.now() - BEGIN);
    return start(...args);
  };
  return times;
};

t.test('a source that does not answer is asked more and more rarely, and few decisions say so', async (t) => {
  const world = await SchedulerWorld.open(t, { answerWait: millis(24 * 60 * MINUTE) });
  const times = asked(world);
  world.hosts.fail('a', 'start', 'UNAVAILABLE', 1000);
  const { id } = await world.submit();
  await world.until(() => world.clock.now() - BEGIN > 4 * MINUTE, 'time passes');
  const pauses = times.slice(1).map((at, index) => at - times[index]!);
  // Chance takes a quarter away here; plans are made each second.
  for (const [index, pause] of pauses.entries()) {
    const least = 0.75 * Math.min(MINUTE, 2000 * 2 ** index);
    t.ok(pause >= least && pause <= least + 1100, `pause ${index}: ${pause} ms of ${least}`);
  }
  t.ok(pauses.length >= 7, `${pauses.length} pauses`);
  const decisions = world.scheduler.decisions(id);
  t.equal(decisions.length, 4, world.texts(id).join(' | '));
  t.match(decisions[0]!.text, /^admitted/);
  const silent = decisions.find(({ text }) => /not known to have begun/.test(text))!;
  t.equal(silent.times, times.length);
  t.ok(silent.lastAt! - silent.at > 3 * MINUTE, `from ${silent.at} to ${silent.lastAt}`);
  world.hosts.fail('a', 'start', 'UNAVAILABLE', 1);
  world.hosts.start = Object.getPrototypeOf(world.hosts).start;
  world.hosts.fail('a', 'start', 'UNAVAILABLE', 1);
  await world.untilState(id, 'copying');
  t.equal(world.scheduler.get(id).attempt, 1, 'one attempt all the time');
});

t.test('one that does not answer for too long fails the task with the reason', async (t) => {
  const world = await SchedulerWorld.open(t, { answerWait: millis(2 * MINUTE) });
  const times = asked(world);
  world.hosts.fail('a', 'start', 'UNAVAILABLE', 1000);
  const { id } = await world.submit();
  const { error } = await world.untilState(id, 'failed');
  t.match(
    error?.message,
    new RegExp(`^a was asked ${times.length} times in 2m, and it is not known to have begun: a: start`),
  );
  t.equal(error?.code, 'UNAVAILABLE');
  t.ok(times.at(-1)! >= 2 * MINUTE && times.at(-1)! < 2.2 * MINUTE, `last asked after ${times.at(-1)} ms`);
  t.same(world.hosts.migrations, []);
});

t.test('when the deadline cannot be met any more, what the start may have made is taken back', async (t) => {
  const world = await SchedulerWorld.open(t);
  world.hosts.fail('a', 'start', 'DEADLINE_EXCEEDED', 1000, true);
  const { id } = await world.submit({ deadline: millis(BEGIN + MINUTE) });
  const { error, endedAt } = await world.untilState(id, 'failed');
  t.match(
    error?.message,
    /^its deadline cannot be met any more: asked for at a and not known to have begun, asked again: a: start fails/,
  );
  t.ok(endedAt! < BEGIN + MINUTE, 'before the deadline');
  t.equal(world.hosts.find('m1').snapshot.state, 'cancelled');
  t.equal(world.hosts.migrations.length, 1);
});

t.test('the time of silence is kept by a new scheduler, and does not depend on the wall clock', async (t) => {
  const world = await SchedulerWorld.open(t, { answerWait: millis(2 * MINUTE) });
  world.hosts.fail('a', 'start', 'UNAVAILABLE', 1000);
  const { id } = await world.submit();
  await world.clock.advance(MINUTE / 2);
  world.clock.wallAhead += 24 * 60 * MINUTE;
  await world.clock.advance(MINUTE / 2);
  t.equal(world.scheduler.get(id).state, 'waiting', 'although a day has passed by the wall clock');
  await world.restart();
  const began = world.clock.now();
  await world.untilState(id, 'failed');
  const rest = world.clock.now() - began;
  t.ok(rest > 0.5 * MINUTE && rest < 1.5 * MINUTE, `${rest} ms more`);
});
