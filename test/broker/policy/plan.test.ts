import t from 'tap';
import { plan } from '../../../src/broker/policy/plan.js';
import type { PlanLimits, PlanStep } from '../../../src/broker/policy/task.js';
import type { LinkLoad } from '../../../src/leaves/hot-spots.js';
import { bytesPerSecond, millis } from '../../../src/leaves/units.js';
import {
  at,
  GB,
  input,
  MB,
  MINUTE,
  NO_LIMITS,
  NOON,
  oneLink,
  racks,
  SECOND,
  star,
  task,
  twoRacks,
} from '../../support/planned-tasks.js';

const ONE: PlanLimits = { perHost: 1, perLink: 1, share: 1 };

const hot = (link: string, load: Partial<LinkLoad> = {}): LinkLoad => ({
  link,
  at: NOON,
  saturated: true,
  hot: true,
  source: 'prometheus query tor',
  ...load,
});

const stepOf = (steps: readonly PlanStep[], id: string): PlanStep => {
  const step = steps.find((each) => each.id === id);
  if (!step) throw new Error(`no step for ${id}`);
  return step;
};

const started = (steps: readonly PlanStep[]): string =>
  steps
    .filter(({ action }) => action === 'start')
    .map(({ id }) => id)
    .join(' ');

t.test('a window that has not come', async (t) => {
  const steps = plan(input([task('x', { opens: 90 * SECOND, due: MINUTE * 10 })]));
  t.strictSame(steps, [
    {
      id: 'x',
      action: 'wait',
      cause: 'window',
      reason: 'its window opens 12:01:30Z, in 1m30s',
      until: at(90 * SECOND),
      turn: at(90 * SECOND),
    },
  ]);
  t.equal(started(plan(input([task('x', { opens: 0, due: MINUTE * 10 })]))), 'x', 'at its first moment');
});

t.test('the order: urgent ones by latest start, then priority, then deadline, then age', async (t) => {
  const tasks = [
    task('plain', { priority: 3 }),
    task('old', { priority: 3, submittedAt: at(-MINUTE) }),
    task('loose', { priority: 3, due: 60 * MINUTE }),
    task('high', { priority: 4 }),
    task('urgent', { priority: 0, due: 3 * MINUTE }),
  ];
  // Each takes 70 s; the link has room for all, places are kept for nobody.
  const steps = plan(input(tasks));
  t.strictSame(
    steps.map(({ id }) => id),
    ['urgent', 'high', 'loose', 'old', 'plain'],
  );
  t.match(stepOf(steps, 'urgent').reason, 'starts as urgent: laxity 2.6');
  t.match(
    stepOf(steps, 'loose').reason,
    'starts at priority 3: laxity 51.4, latest start 12:58:50Z, about 1m10s',
  );
  t.match(stepOf(steps, 'plain').reason, 'no deadline');
});

t.test(
  'what is late is the most urgent of its priority, waits for no heat, and takes no promised place',
  async (t) => {
    const tasks = [
      task('high', { priority: 4 }),
      task('loose', { priority: 3, due: 60 * MINUTE }),
      task('late', { priority: 3, late: true, submittedAt: at(SECOND) }),
      task('old', { priority: 3, submittedAt: at(-MINUTE) }),
      task('urgent', { priority: 0, due: 3 * MINUTE }),
    ];
    t.strictSame(
      plan(input(tasks)).map(({ id }) => id),
      ['urgent', 'high', 'late', 'loose', 'old'],
    );
    const heat = { loads: [hot('ab')] };
    const steps = plan(input([task('late', { late: true }), task('plain')], heat));
    t.match(stepOf(steps, 'late'), { action: 'start', reason: /^starts although ab is hot.*cannot be met/ });
    t.match(stepOf(steps, 'plain'), { action: 'wait', cause: 'hot' });
    // One place, 70 s each: with the late one first the other would miss.
    const promised = [
      task('late', { priority: 9, late: true }),
      task('due', { opens: SECOND, due: 2 * MINUTE }),
    ];
    t.match(stepOf(plan(input(promised, { limits: ONE })), 'late'), { action: 'wait', cause: 'order' });
  },
);

t.test('full hosts and links are named, with who is there', async (t) => {
  const running = task('runs', { target: 'c', state: 'running' });
  const paths = star(['a', 'b', 'c', 'd']);
  const steps = plan(input([running, task('x')], { paths, limits: ONE }));
  t.match(steps, [
    { id: 'x', action: 'wait', cause: 'busy', reason: 'a has 1 of 1 migrations: runs; no deadline' },
  ]);
  const racks = plan(
    input(
      [task('runs', { source: 'a', target: 'c', state: 'running' }), task('x', { source: 'b', target: 'd' })],
      {
        paths: twoRacks(),
        limits: { perHost: 5, perLink: 1, share: 1 },
      },
    ),
  );
  t.match(stepOf(racks, 'x').reason, 'link middle has 1 of 1 migrations: runs');
  const both = plan(input([task('one', { priority: 1 }), task('two')], { paths, limits: ONE }));
  t.equal(started(both), 'one');
  t.match(stepOf(both, 'two'), { cause: 'order', reason: 'a has 1 of 1 migrations: one' });
});

t.test('a place is kept for a deadline that comes before this would end', async (t) => {
  const paths = star(['a', 'b', 'c', 'd']);
  const booked = task('booked', { target: 'c', opens: MINUTE, due: 3 * MINUTE });
  const long = task('long', { target: 'd', left: 60 * GB });
  const steps = plan(input([booked, long], { paths, limits: ONE }));
  t.match(stepOf(steps, 'long'), {
    action: 'wait',
    cause: 'order',
    reason: 'a place of a is kept for booked, which has to start by 12:01:50Z; no deadline',
    until: at(110 * SECOND),
  });
  const short = task('short', { target: 'd', left: 0.1 * GB });
  t.equal(started(plan(input([booked, short], { paths, limits: ONE }))), 'short', 'it is gone by then');
  t.equal(
    started(plan(input([booked, long], { paths, limits: { perHost: 2, perLink: 2, share: 1 } }))),
    'long',
  );
});

t.test('a hot link postpones until the laxity is used up, with the numbers', async (t) => {
  const asked = task('x', { due: 10 * MINUTE });
  const loads = [hot('ab', { rate: 95 * MB, capacity: bytesPerSecond(100 * MB) })];
  // 70 s of work: with danger 3, from 10 minutes less 210 s on it would start in danger.
  t.strictSame(plan(input([asked], { loads })), [
    {
      id: 'x',
      action: 'wait',
      cause: 'hot',
      reason:
        'ab is hot (95.0 MB/s of 100 MB/s, prometheus query tor), waits until 12:06:30Z at the latest; laxity 8.6',
      until: at(390 * SECOND),
      turn: at(390 * SECOND),
    },
  ]);
  const later = plan(input([asked], { loads, now: at(390 * SECOND) }));
  t.match(later, [{ action: 'start', reason: 'starts although ab is hot' }]);
  t.match(plan(input([asked], { loads: [] })), [{ action: 'start' }], 'it has cooled');
  t.match(plan(input([asked], { loads: [hot('elsewhere')] })), [{ action: 'start' }]);
  t.match(plan(input([task('x', { due: 10 * MINUTE, terms: { important: true } })], { loads })), [
    { action: 'start' },
  ]);
});

t.test('what migrations move themselves makes no link hot', async (t) => {
  const running = task('runs', { state: 'running', netRate: 90 * MB, left: 60 * GB });
  const full = { rate: 95 * MB, capacity: bytesPerSecond(100 * MB) };
  const asked = task('x', { due: 60 * MINUTE });
  t.match(stepOf(plan(input([running, asked], { loads: [hot('ab', full)] })), 'x'), { action: 'start' });
  t.match(stepOf(plan(input([asked], { loads: [hot('ab', full)] })), 'x'), { cause: 'hot' });
  t.match(stepOf(plan(input([asked], { loads: [hot('ab', { hot: false })] })), 'x'), { action: 'start' });
  t.match(
    stepOf(plan(input([asked], { loads: [hot('ab', { hot: false, ...full })] })), 'x'),
    { cause: 'hot' },
    'saturated, and not by migrations',
  );
  const ways = [
    task('there', { state: 'running', netRate: 50 * MB, left: 60 * GB }),
    task('back', { state: 'running', netRate: 50 * MB, left: 60 * GB, source: 'b', target: 'a' }),
  ];
  t.match(
    stepOf(plan(input([...ways, asked], { loads: [hot('ab', full)] })), 'x'),
    { cause: 'hot' },
    'one direction does not explain the load of the other',
  );
});

t.test('several that wait for one link to cool do not wait for each other too long', async (t) => {
  // Each takes 310 s and would alone wait until 12:12; together they need 930 s of the 1,800.
  const tasks = ['x', 'y', 'z'].map((id) =>
    task(id, { left: 30 * GB, due: 30 * MINUTE, terms: { danger: 1.1 } }),
  );
  const loads = [hot('ab')];
  const until = plan(input(tasks, { loads })).map((step) =>
    step.action === 'wait' ? step.until! - NOON : 0,
  );
  t.ok(
    until.every((time) => time > 0),
    'all wait',
  );
  t.ok(Math.min(...until) <= (1800 - 910) * SECOND, `the first until ${Math.min(...until)}`);
});

t.test(
  'without a deadline heat postpones for an hour at most, and waiting raises the priority',
  async (t) => {
    const loads = [hot('ab')];
    const x = task('x');
    t.match(plan(input([x], { loads })), [{ cause: 'hot', until: at(60 * MINUTE) }]);
    t.match(plan(input([x], { loads, now: at(60 * MINUTE) })), [{ action: 'start' }]);
    const first = (now: number): string =>
      plan(input([task('old'), task('new', { priority: 5, submittedAt: at(now) })], { now: at(now) }))[0]!.id;
    t.equal(first(49 * MINUTE), 'new');
    t.equal(first(60 * MINUTE), 'old', 'six steps of ten minutes are more than five priorities');
  },
);

t.test('a task that the topology has no route for waits, and says so', async (t) => {
  t.match(plan(input([task('x', { target: 'gone' }), task('y')])), [
    { id: 'y', action: 'start' },
    { id: 'x', action: 'wait', cause: 'route', reason: "the topology has no host 'gone'" },
  ]);
});

t.test('a priority does not break a promise', async (t) => {
  // Both have to go over a's only place; the loose one comes first by priority and would leave too little time.
  const promised = task('promised', { left: 30 * GB, due: 8 * MINUTE, terms: { danger: 1.1 } });
  const important = task('first', {
    left: 30 * GB,
    due: 15 * MINUTE,
    priority: 9,
    target: 'c',
    terms: { danger: 1.1 },
  });
  const steps = plan(input([promised, important], { paths: star(['a', 'b', 'c']), limits: ONE }));
  t.equal(started(steps), 'promised');
  const enough = { ...promised, deadline: at(11 * MINUTE) };
  t.equal(
    started(plan(input([enough, important], { paths: star(['a', 'b', 'c']), limits: ONE }))),
    'first',
    'where there is time for both the priority counts',
  );
});

t.test('nobody starves: a task without a deadline overtakes new ones of any priority', async (t) => {
  // One place; every ten minutes a new task of the highest priority wants it, and each takes ten minutes.
  const old = task('old', { submittedAt: NOON });
  let started = -1;
  for (let round = 0; round <= 11 && started < 0; round++) {
    const now = at(round * 10 * MINUTE);
    const fresh = [`n${round}`, `m${round}`].map((id) =>
      task(id, { priority: 9, submittedAt: millis(now - 1) }),
    );
    const steps = plan(input([old, ...fresh], { now, limits: ONE }));
    if (stepOf(steps, 'old').action === 'start') started = round;
  }
  t.ok(started >= 9 && started <= 10, `in round ${started}`);
});

for (const rounds of [1, 2])
  t.test(
    `nobody starves behind those that would break a promise (rounds of repair: ${rounds})`,
    async (t) => {
      const paths = racks({ left: 'abe', middle: 'cd', right: 'g', far: 'hj', last: 'ik' });
      // They leave nothing of the links of their racks: who starts there now keeps its hosts for an hour.
      const running = (id: string, source: string, target: string) =>
        task(id, { source, target, left: 300 * GB, state: 'running', due: 75 * MINUTE });
      const promised = (id: string, source: string, target: string) =>
        task(id, { source, target, left: 30 * GB, opens: 15 * MINUTE, due: 21 * MINUTE });
      const tasks = [
        running('r', 'a', 'c'),
        promised('p', 'b', 'd'),
        ...Array.from({ length: 30 }, (_, i) => task(`x${i}`, { source: 'b', target: 'g', priority: 5 })),
        task('good', { source: 'b', target: 'e' }),
        // Nobody sees that y would break a promise before the others are kept from g.
        ...(rounds === 2
          ? [running('s', 'j', 'k'), promised('q', 'h', 'i'), task('y', { source: 'h', target: 'g' })]
          : []),
      ];
      let isStarted = false;
      for (let look = 0; look < 12 && !isStarted; look++) {
        const now = at(look * 10 * SECOND);
        const steps = plan(input(tasks, { now, paths, limits: { perHost: 1, perLink: 100, share: 1 } }));
        isStarted = started(steps) === 'good';
        t.match(started(steps), /^(good)?$/);
        t.match(stepOf(steps, 'x0').reason, /^p would miss its deadline/);
      }
      t.ok(isStarted);
    },
  );

t.test('1,000 tasks between 1,000 hosts are planned in well under a second of computing', async (t) => {
  const racks = 40;
  const hosts = Array.from({ length: 1000 }, (_, i) => `h${i}`);
  const { checkTopology } = await import('../../../src/broker/policy/topology.js');
  const paths = checkTopology({
    hosts: hosts.map((name) => ({ name, control: `${name}:7070`, data: `${name}:7071` })),
    switches: ['core', ...Array.from({ length: racks }, (_, i) => `tor${i}`)],
    links: [
      ...hosts.map((name, i) => ({ name, between: [name, `tor${i % racks}`], capacity: '10Gbit/s' })),
      ...Array.from({ length: racks }, (_, i) => ({
        name: `up${i}`,
        between: [`tor${i}`, 'core'],
        capacity: '100Gbit/s',
      })),
    ],
  });
  const tasks = hosts
    .map((source, i) =>
      task(`t${i}`, {
        source,
        target: `h${(i * 7 + 1) % 1000}`,
        left: 50 * GB,
        dirtyRate: 30 * MB,
        priority: i % 10,
        state: i < 200 ? 'running' : 'waiting',
        netRate: i < 200 ? 500 * MB : 0,
        ...(i % 4 !== 0 && { due: (15 + (i % 60)) * MINUTE }),
        ...(i % 5 === 0 && { opens: (i % 20) * MINUTE }),
      }),
    )
    .filter(({ source, target }) => source !== target);
  const around = input(tasks, {
    paths,
    limits: { perHost: 2, perLink: 50, share: 0.8 },
    loads: [hot('up3')],
  });
  plan(around);
  const before = process.cpuUsage();
  const steps = plan(around);
  const { user, system } = process.cpuUsage(before);
  t.ok(steps.filter(({ action }) => action === 'start').length > 100);
  t.ok((user + system) / 1000 < 1000, `${(user + system) / 1000} ms`);
});

t.test('a link without limits and one task', async (t) => {
  t.equal(started(plan(input([task('x')], { paths: oneLink(), limits: NO_LIMITS }))), 'x');
});
