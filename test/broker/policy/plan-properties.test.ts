import fc from 'fast-check';
import t from 'tap';
import { demandOf } from '../../../src/broker/policy/demand.js';
import { plan } from '../../../src/broker/policy/plan.js';
import type { PlanInput, PlanStep, PlanTask } from '../../../src/broker/policy/task.js';
import type { LinkLoad } from '../../../src/leaves/hot-spots.js';
import { bytesPerSecond } from '../../../src/leaves/units.js';
import { anyTasks, input, MB, MINUTE, NOON, star, twoRacks } from '../../support/planned-tasks.js';

const hot = (link: string, load: Partial<LinkLoad> = {}): LinkLoad => ({
  link,
  at: NOON,
  saturated: true,
  hot: true,
  source: 'prometheus query tor',
  ...load,
});

const HOSTS = ['a', 'b', 'c', 'd'];
const anyInput: fc.Arbitrary<PlanInput> = fc
  .record({
    tasks: anyTasks(HOSTS, 12),
    paths: fc.constantFrom(star(HOSTS), twoRacks(), twoRacks('100MB/s', '30MB/s')),
    perHost: fc.constantFrom(1, 2, 3),
    perLink: fc.constantFrom(1, 2, 100),
    hotLinks: fc.subarray([...HOSTS, 'middle']),
    known: fc.boolean(),
  })
  .map(({ tasks, paths, perHost, perLink, hotLinks, known }) =>
    input(tasks, {
      paths,
      limits: { perHost, perLink, share: 1 },
      loads: hotLinks.map((name) =>
        hot(name, known ? { rate: 95 * MB, capacity: bytesPerSecond(100 * MB) } : {}),
      ),
    }),
  );

const duration = (task: PlanTask, { paths, limits }: PlanInput): number => {
  const free = demandOf(task, paths, limits, 'free').duration;
  return free === Infinity ? demandOf(task, paths, limits, 'limited').duration : free;
};

/** How many of `tasks` are at each host and on each direction of each link. */
const occupied = (tasks: readonly PlanTask[], { paths }: PlanInput): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>();
  const add = (key: string): void => void counts.set(key, (counts.get(key) ?? 0) + 1);
  for (const { source, target } of tasks) {
    add(`host ${source}`);
    add(`host ${target}`);
    for (const { name, backward } of paths.path(source, target)) add(`link ${name} ${backward}`);
  }
  return counts;
};

/** Checks 300 plans; answers how many steps they had. */
const holds = (check: (around: PlanInput, steps: readonly PlanStep[]) => boolean): number => {
  let steps = 0;
  fc.assert(
    fc.property(anyInput, (around) => {
      const made = plan(around);
      steps += made.length;
      return check(around, made);
    }),
    { numRuns: 300 },
  );
  return steps;
};

t.test(
  'every waiting task has one step, with a reason and a time to look again that is to come',
  async (t) => {
    const steps = holds(
      ({ tasks, now }, steps) =>
        steps
          .map(({ id }) => id)
          .sort()
          .join() ===
          tasks
            .filter(({ state }) => state === 'waiting')
            .map(({ id }) => id)
            .sort()
            .join() &&
        steps.every(
          (step) =>
            step.reason.length > 10 &&
            !step.reason.includes('\n') &&
            (step.action === 'start' || step.until === undefined || step.until > now),
        ),
    );
    t.ok(steps > 300, `${steps} steps`);
  },
);

t.test('starts never exceed the places', async (t) => {
  const steps = holds((around, steps) => {
    const { tasks, limits } = around;
    const going = new Set(steps.filter(({ action }) => action === 'start').map(({ id }) => id));
    const running = occupied(
      tasks.filter(({ state }) => state === 'running'),
      around,
    );
    const after = occupied(
      tasks.filter(({ id, state }) => state === 'running' || going.has(id)),
      around,
    );
    return [...after].every(
      ([key, count]) =>
        count === (running.get(key) ?? 0) ||
        count <= (key.startsWith('host') ? limits.perHost : limits.perLink),
    );
  });
  t.ok(steps > 300, `${steps} steps`);
});

t.test('nothing starts before its window', async (t) => {
  const steps = holds(({ tasks, now }, steps) =>
    steps.every(
      ({ id, action }) => action === 'wait' || (tasks.find((task) => task.id === id)!.notBefore ?? 0) <= now,
    ),
  );
  t.ok(steps > 300, `${steps} steps`);
});

t.test('a hot link postpones only while the laxity allows', async (t) => {
  let postponed = 0;
  holds((around, steps) =>
    steps.every((step) => {
      if (step.action === 'start' || step.cause !== 'hot') return true;
      postponed++;
      const { deadline, terms, submittedAt, notBefore, ...rest } = around.tasks.find(
        ({ id }) => id === step.id,
      )!;
      if (terms.important || step.until === undefined || step.until <= around.now) return false;
      if (deadline === undefined) return step.until <= Math.max(submittedAt, notBefore ?? 0) + 60 * MINUTE;
      const takes = duration({ ...rest, deadline, terms, submittedAt }, around);
      return deadline - step.until >= terms.danger * takes - 1;
    }),
  );
  t.ok(postponed > 10, `${postponed} were postponed`);
});

t.test(
  'a task whose latest start has come starts if its places are free, before those with a later one',
  async (t) => {
    let due = 0;
    holds((around, steps) => {
      const { tasks, now, limits } = around;
      const going = new Set<string>();
      for (const step of steps) {
        const task = tasks.find(({ id }) => id === step.id)!;
        const isFree = (): boolean => {
          const counts = occupied(
            [...tasks.filter(({ id, state }) => state === 'running' || going.has(id)), task],
            around,
          );
          const own = occupied([task], around);
          return [...own.keys()].every(
            (key) => counts.get(key)! <= (key.startsWith('host') ? limits.perHost : limits.perLink),
          );
        };
        // With a disk limit: without one it may be too late, and still not its turn.
        const latest =
          (task.deadline ?? Infinity) - demandOf(task, around.paths, around.limits, 'limited').duration;
        if (latest <= now && (task.notBefore ?? 0) <= now) {
          due++;
          // Its place may be kept for somebody whose promise can still be held, where its own cannot.
          const given =
            step.action === 'wait' && /would miss its deadline|were tried before/.test(step.reason);
          if (step.action === 'wait' && isFree() && !given) return false;
        }
        if (step.action === 'start') going.add(step.id);
      }
      return true;
    });
    t.ok(due > 30, `${due} were due`);
  },
);

t.test('the order of the input does not matter', async (t) => {
  let compared = 0;
  fc.assert(
    fc.property(
      anyInput.chain((around) =>
        fc.tuple(
          fc.constant(around),
          fc.shuffledSubarray([...around.tasks], { minLength: around.tasks.length }),
          fc.shuffledSubarray([...around.loads], { minLength: around.loads.length }),
        ),
      ),
      ([around, tasks, loads]) => {
        compared++;
        return JSON.stringify(plan(around)) === JSON.stringify(plan({ ...around, tasks, loads }));
      },
    ),
    { numRuns: 200 },
  );
  t.equal(compared, 200);
});
