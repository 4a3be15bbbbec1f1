import t from 'tap';
import { admit } from '../../src/broker/policy/admission.js';
import { plan } from '../../src/broker/policy/plan.js';
import type { PlanInput, PlanTask } from '../../src/broker/policy/task.js';
import { millis } from '../../src/leaves/units.js';
import { BEGIN, SchedulerWorld } from '../support/scheduler-world.js';

const TURN = millis(BEGIN + 3_600_000);

const taskOf = (input: PlanInput | undefined, id: string): PlanTask | undefined =>
  input?.tasks.find((task) => task.id === id);

t.test('the turns of an admission and of a plan are told to the next one', async (t) => {
  const planned: PlanInput[] = [];
  const world = await SchedulerWorld.open(t, {
    admit: (candidate, input) => ({ ...admit(candidate, input), turns: new Map([['', TURN]]) }),
    plan: (input) => {
      planned.push(input);
      const turn = millis(TURN + planned.length);
      return input.tasks.map(({ id }) => ({ id, action: 'wait', cause: 'order', reason: 'later', turn }));
    },
  });
  const { id } = await world.submit();
  await world.until(() => planned.length >= 3, 'three plans');
  const turns = planned.slice(0, 3).map((input) => taskOf(input, id)?.turn);
  t.strictSame(turns, [TURN, TURN + 1, TURN + 2]);
});

t.test('since when a task is in sync is not forgotten', async (t) => {
  const planned: PlanInput[] = [];
  const world = await SchedulerWorld.open(t, {
    plan: (input) => {
      planned.push(input);
      return plan(input);
    },
  });
  const moving = await world.submit();
  await world.untilState(moving.id, 'copying');
  world.hosts.set('m1', 'mirroring');
  // One that waits, so that plans are made.
  await world.submit({ vm: 'vm2', images: ['vm2.raw'], notBefore: TURN });
  await world.until(
    () => taskOf(planned.at(-1), moving.id)?.syncedAt !== undefined,
    'a plan with it in sync',
  );
  const first = planned.at(-1)!;
  await world.until(() => planned.at(-1)!.now > first.now, 'another plan');
  t.equal(taskOf(planned.at(-1), moving.id)?.syncedAt, taskOf(first, moving.id)?.syncedAt);
});
