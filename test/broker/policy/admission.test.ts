import fc from 'fast-check';
import t from 'tap';
import { admit } from '../../../src/broker/policy/admission.js';
import type { PlanTask } from '../../../src/broker/policy/task.js';
import { bytesPerSecond, millis } from '../../../src/leaves/units.js';
import {
  anyTask,
  anyTasks,
  at,
  GB,
  input,
  MB,
  MINUTE,
  NO_LIMITS,
  NOON,
  oneLink,
  SECOND,
  star,
  task,
} from '../../support/planned-tasks.js';

/** A guest that may not be slowed below what it dirties. */
const UNLIMITABLE = { diskFloor: bytesPerSecond(1000 * MB) };
const VM = { ...UNLIMITABLE, vmmTime: millis(10 * SECOND) };

t.test('Expression 1: what is left, over the network rate less the dirty rate, and the VM', async (t) => {
  const paths = oneLink('117MB/s');
  // 42.9 GB / 87 MB/s = 493.1 s, and 10 s.
  const asked = { left: 42.9 * GB, dirtyRate: 30 * MB, terms: VM };
  const answer = admit(task('x', { ...asked, due: 10 * MINUTE }), input([], { paths }));
  t.equal(answer.feasible, true);
  t.match(
    answer.arithmetic,
    '42.9 GB at 117 MB/s less 30.0 MB/s dirtied = 8m13s + 10 s for the VM = 8m23s, ends 12:08:23Z, ' +
      'the deadline is 12:10:00Z: 1m37s to spare',
  );
  t.equal(Math.round(answer.finish! / SECOND), NOON / SECOND + 503);
  t.equal(Math.round(answer.latestStart! / SECOND), NOON / SECOND + 97);

  const refused = admit(task('x', { ...asked, due: 8 * MINUTE }), input([], { paths }));
  t.equal(refused.feasible, false);
  t.match(refused.arithmetic, 'ends 12:08:23Z; the deadline is 12:08:00Z: 23 s too late');
  t.match(refused.arithmetic, 'Earliest feasible deadline 12:08:24Z');
  t.equal(refused.earliestDeadline, at(504 * SECOND));
});

t.test('the paper counts the whole disk; here only what is left', async (t) => {
  const running = task('x', { left: 1 * GB, allocated: 60 * GB, due: 1 * MINUTE, state: 'running' });
  t.equal(admit(running, input([])).feasible, true);
});

t.test('a share of each link is counted on, the narrowest bounds', async (t) => {
  const limits = { ...NO_LIMITS, share: 0.5 };
  const answer = admit(task('x', { left: 6 * GB, due: 10 * MINUTE }), input([], { limits }));
  t.match(answer.arithmetic, '6.0 GB at 50.0 MB/s = 2m + 10 s for the VM = 2m10s');
  const second = (due: number) =>
    admit(task('y', { due }), input([task('x', { due: 2 * MINUTE + 10 * SECOND })], { limits })).feasible;
  t.equal(second(4 * MINUTE + 9 * SECOND), false, 'also of what tasks share');
  t.equal(second(4 * MINUTE + 10 * SECOND), true);
});

t.test('the window is where it starts', async (t) => {
  const answer = admit(task('x', { opens: 5 * MINUTE, due: 6 * MINUTE }), input([]));
  t.equal(answer.feasible, false);
  t.match(
    answer.arithmetic,
    'not before 12:05:00Z, ends 12:06:10Z; the deadline is 12:06:00Z: 10 s too late',
  );
  t.equal(admit(task('x', { opens: 5 * MINUTE, due: 6 * MINUTE + 10 * SECOND }), input([])).feasible, true);
});

t.test('a disk limit is counted on only where it is needed, and said', async (t) => {
  // 6 GB at 100 MB/s less 40 MB/s: 100 s; with 1 MB/s dirtied: 60.6 s.
  const asked = { left: 6 * GB, dirtyRate: 40 * MB };
  const free = admit(task('x', { ...asked, due: 2 * MINUTE }), input([]));
  t.equal(free.feasible, true);
  t.equal(free.writesLimited, undefined);
  t.match(free.arithmetic, 'less 40.0 MB/s dirtied');
  const limited = admit(task('x', { ...asked, due: 90 * SECOND }), input([]));
  t.equal(limited.feasible, true);
  t.equal(limited.writesLimited, true);
  t.match(
    limited.arithmetic,
    'less 1.0 MB/s dirtied = 1m1s + 10 s for the VM = 1m11s with its writes limited to 1.0 MB/s',
  );
  t.equal(admit(task('x', { ...asked, due: 65 * SECOND }), input([])).feasible, false);
});

t.test('small writes dirty whole blocks, also under a disk limit', async (t) => {
  // 10 MB/s of small writes dirty 160 MB/s: 1 MB/s of them still dirty 16 MB/s, so 6 GB take 71 s and not 61 s.
  const asked = { left: 6 * GB, dirtyRate: 160 * MB, writeRate: 10 * MB };
  t.equal(admit(task('x', { ...asked, due: 80 * SECOND }), input([])).feasible, false);
  t.match(admit(task('x', { ...asked, due: 82 * SECOND }), input([])).arithmetic, 'less 16.0 MB/s dirtied');
});

t.test('what can never be is a clear line', async (t) => {
  const lines: [PlanTask, RegExp][] = [
    [task('x', { target: 'nobody', due: MINUTE }), /no host 'nobody'/],
    [task('x', { target: 'a' }), /same host/],
    [task('x', { due: -MINUTE }), /the deadline 11:59:00Z is 1m in the past/],
    [
      task('x', { opens: 2 * MINUTE, due: MINUTE }),
      /not start before 12:02:00Z, and the deadline is 12:01:00Z/,
    ],
    [
      task('x', { dirtyRate: 120 * MB, terms: UNLIMITABLE }),
      /never in sync: 120 MB\/s dirtied, and ab carries 100 MB\/s/,
    ],
    [
      task('x', { dirtyRate: 120 * MB, terms: { diskFloor: bytesPerSecond(110 * MB) } }),
      /never in sync: 110 MB\/s dirtied with its writes limited to 110 MB\/s, and ab carries/,
    ],
  ];
  for (const [candidate, line] of lines) {
    const answer = admit(candidate, input([]));
    t.equal(answer.feasible, false);
    t.match(answer.arithmetic, line);
    t.equal(answer.earliestDeadline, undefined);
  }
});

t.test(
  'earlier deadlines on the same link come first; the answer names them and what would do',
  async (t) => {
    const first = task('first', { left: 30 * GB, due: 6 * MINUTE });
    // 30 GB take 300 s, then 6 GB take 60 s: in sync after 6 minutes.
    const late = admit(task('x', { due: 6 * MINUTE + SECOND }), input([first]));
    t.equal(late.feasible, false);
    t.match(
      late.arithmetic,
      'alone it would end 12:01:10Z, beside what is admitted (earlier: first) 12:06:10Z',
    );
    t.match(late.arithmetic, '9.0 s too late. Earliest feasible deadline 12:06:10Z');
    t.equal(admit(task('x', { due: 6 * MINUTE + 10 * SECOND }), input([first])).feasible, true);
    const back = task('x', { source: 'b', target: 'a', due: 2 * MINUTE });
    t.equal(admit(back, input([first])).feasible, true, 'the other direction is free');
  },
);

t.test('no admitted deadline is endangered', async (t) => {
  const tight = task('tight', { left: 30 * GB, due: 310 * SECOND + SECOND });
  const refused = admit(task('x', { due: 2 * MINUTE }), input([tight]));
  t.equal(refused.feasible, false);
  t.match(refused.arithmetic, 'would end 12:01:10Z, but tight would miss: tight 59 s too late');
  t.match(refused.arithmetic, 'Earliest feasible deadline 12:06:10Z');
});

t.test('what is late anyway is no reason to refuse others', async (t) => {
  const hopeless = task('hopeless', { left: 60 * GB, due: 2 * MINUTE, state: 'running' });
  t.equal(admit(task('x', { due: 20 * MINUTE }), input([hopeless])).feasible, true);
  t.equal(
    admit(task('x', { due: 90 * SECOND }), input([hopeless])).feasible,
    false,
    'it would be later still',
  );
});

t.test('a promise that needs its guest limited is not late anyway', async (t) => {
  // 8 GB take 90.8 s with a disk limit, and never end without one.
  const promised = task('promised', { left: 8 * GB, dirtyRate: 120 * MB, due: 2 * MINUTE });
  const beside = (due: number) => admit(task('x', { left: 2 * GB, due }), input([promised])).feasible;
  t.equal(admit(promised, input([])).feasible, true);
  t.equal(beside(30 * SECOND), true, 'both fit');
  const longer = (due: number) => admit(task('x', { left: 4 * GB, due }), input([promised])).feasible;
  t.equal(longer(50 * SECOND), false, 'the promise would be late');
});

t.test('tasks without a deadline do not stand in the way', async (t) => {
  const others = [task('waits', { left: 1000 * GB }), task('runs', { left: 1000 * GB, state: 'running' })];
  t.equal(admit(task('x', { due: 71 * SECOND }), input(others)).feasible, true);
  const answer = admit(task('x'), input([task('first', { due: 71 * SECOND })]));
  t.equal(answer.feasible, true);
  t.match(answer.arithmetic, 'no deadline');
  // 100 MB/s are spoken for by a guest that dirties faster; a limit of its writes helps both.
  const dirty = task('dirty', { dirtyRate: 120 * MB, left: 60 * GB, due: 20 * MINUTE, state: 'running' });
  t.match(admit(task('x'), input([dirty])).arithmetic, /ends 12:1\d:\d\dZ/);
});

t.test('a place is held to the end; one is kept for an earlier deadline that comes later', async (t) => {
  const limits = { perHost: 1, perLink: 10, share: 1 };
  const paths = star(['a', 'b', 'c', 'd']);
  const running = task('runs', { target: 'c', left: 12 * GB, state: 'running' });
  // The place at a is free after 130 s.
  const asked = (due: number) => admit(task('x', { due }), input([running], { limits, paths }));
  t.equal(asked(199 * SECOND).feasible, false);
  t.equal(asked(201 * SECOND).feasible, true);
  // From 60 s, or 70 s at the latest, somebody has the place for 110 s, and this takes 80 s: it has to come after.
  const booked = task('booked', { target: 'c', left: 10 * GB, opens: MINUTE, due: 3 * MINUTE });
  const beside = (due: number) => admit(task('x', { left: 7 * GB, due }), input([booked], { limits, paths }));
  t.equal(beside(251 * SECOND).feasible, true);
  t.equal(beside(249 * SECOND).feasible, false);
  t.equal(beside(249 * SECOND).earliestDeadline, at(250 * SECOND));
});

const TICK = 60 * SECOND;
const UNIT = 6 * GB;

/** Whether any preemptive schedule on one link meets all deadlines: every choice of who has it in each tick. */
const existsSchedule = (tasks: readonly { work: number; release: number; due: number }[]): boolean => {
  const known = new Map<string, boolean>();
  const search = (tick: number, left: readonly number[]): boolean => {
    if (left.every((work) => work === 0)) return true;
    if (tasks.some(({ due }, i) => left[i]! > 0 && tick + left[i]! > due)) return false;
    const key = `${tick} ${left.join()}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const answer =
      search(tick + 1, left) ||
      tasks.some(
        ({ release }, i) => release <= tick && left[i]! > 0 && search(tick + 1, left.with(i, left[i]! - 1)),
      );
    known.set(key, answer);
    return answer;
  };
  return search(
    0,
    tasks.map(({ work }) => work),
  );
};

t.test('on one link: admitted exactly if some preemptive schedule exists', async (t) => {
  const answers = { yes: 0, no: 0 };
  const anyWork = fc.record({
    work: fc.integer({ min: 1, max: 4 }),
    release: fc.integer({ min: 0, max: 6 }),
    length: fc.integer({ min: 1, max: 8 }),
  });
  fc.assert(
    fc.property(fc.array(anyWork, { minLength: 1, maxLength: 5 }), (works) => {
      const promised: { work: number; release: number; due: number }[] = [];
      const admitted: PlanTask[] = [];
      for (const [i, { work, release, length }] of works.entries()) {
        const wanted = { work, release, due: release + length };
        const candidate = task(`t${i}`, {
          left: work * UNIT,
          opens: release * TICK,
          due: wanted.due * TICK,
          terms: { vmmTime: millis(0) },
        });
        const { feasible } = admit(candidate, input(admitted));
        if (feasible !== existsSchedule([...promised, wanted])) return false;
        answers[feasible ? 'yes' : 'no']++;
        if (!feasible) continue;
        promised.push(wanted);
        admitted.push(candidate);
      }
      return true;
    }),
    { numRuns: 400 },
  );
  t.ok(answers.yes > 100 && answers.no > 100, JSON.stringify(answers));
});

const permutations = <T>(items: readonly T[]): T[][] =>
  items.length === 0
    ? [[]]
    : items.flatMap((item, i) => permutations(items.toSpliced(i, 1)).map((rest) => [item, ...rest]));

t.test('on one link with dirtying guests: admitted exactly if some order of them exists', async (t) => {
  const answers = { yes: 0, no: 0 };
  const anyCopy = fc.record({
    gigabytes: fc.integer({ min: 1, max: 30 }),
    dirty: fc.integer({ min: 0, max: 60 }),
    due: fc.integer({ min: 1, max: 15 }),
  });
  fc.assert(
    fc.property(fc.array(anyCopy, { minLength: 1, maxLength: 5 }), (copies) => {
      const admitted: PlanTask[] = [];
      for (const [i, { gigabytes, dirty, due }] of copies.entries()) {
        const candidate = task(`t${i}`, {
          left: gigabytes * GB,
          dirtyRate: dirty * MB,
          due: due * MINUTE,
          terms: VM,
        });
        const { feasible } = admit(candidate, input(admitted));
        const exists = permutations([...admitted, candidate]).some((order) => {
          let time = 0;
          return order.every(({ left, dirtyRate, deadline }) => {
            time += left / (100 * MB - dirtyRate);
            return NOON + (time + 10) * SECOND <= deadline! + 0.5;
          });
        });
        if (feasible !== exists) return false;
        answers[feasible ? 'yes' : 'no']++;
        if (feasible) admitted.push(candidate);
      }
      return true;
    }),
    { numRuns: 300 },
  );
  t.ok(answers.yes > 100 && answers.no > 100, JSON.stringify(answers));
});

const HOSTS = ['a', 'b', 'c', 'd'];
const paths = star(HOSTS);
const anyLimits = fc.record({
  perHost: fc.constantFrom(1, 2, 100),
  perLink: fc.constantFrom(1, 100),
  share: fc.constantFrom(0.5, 1),
});

t.test('the deadline that is offered would be admitted', async (t) => {
  let offered = 0;
  fc.assert(
    fc.property(anyTasks(HOSTS, 8), anyTask('x', HOSTS), anyLimits, (tasks, candidate, limits) => {
      const around = input(tasks, { paths, limits });
      const { earliestDeadline } = admit({ ...candidate, state: 'waiting' }, around);
      if (earliestDeadline === undefined) return true;
      offered++;
      return admit({ ...candidate, state: 'waiting', deadline: earliestDeadline }, around).feasible;
    }),
    { numRuns: 500 },
  );
  t.ok(offered > 20, `${offered} deadlines were offered`);
});

t.test(
  'the answer does not depend on the order of tasks, nor on the candidate being among them',
  async (t) => {
    let compared = 0;
    fc.assert(
      fc.property(
        anyTasks(HOSTS, 8).chain((tasks) =>
          fc.tuple(fc.constant(tasks), fc.shuffledSubarray(tasks, { minLength: tasks.length })),
        ),
        anyLimits,
        ([tasks, shuffled], limits) => {
          compared++;
          const candidate: PlanTask = { ...tasks[0]!, state: 'waiting' };
          const one = admit(candidate, input(tasks.slice(1), { paths, limits }));
          const other = admit(candidate, input(shuffled, { paths, limits }));
          return JSON.stringify(one) === JSON.stringify(other);
        },
      ),
      { numRuns: 200 },
    );
    t.equal(compared, 200);
  },
);
