/** Tasks by the dozen, a scheduler that is killed again and again, and the proof that each task ended once. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TaskStore } from '../../src/broker/scheduler/task-store.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import type { TaskSnapshot } from '../../src/leaves/scheduler.js';
import { isTaskFinal } from '../../src/leaves/scheduler.js';
import { Random } from './random.js';
import type { Cloud } from './scheduled-cloud.js';
import { RESUME_BYTES, startCloud } from './scheduled-cloud.js';
import type { Teardown } from './scratch.js';
import { waitFor } from './wait-for.js';

export interface KillsOptions {
  readonly tasks: number;
  readonly kills: number;
  readonly hosts: number;
  readonly seed: number;
  readonly say?: (line: string) => void;
}

export interface KillsResult {
  /** What does not hold; none: everything does. */
  readonly faults: readonly string[];
  /** Tasks by how they ended. */
  readonly ends: Readonly<Record<string, number>>;
  /** States in which tasks were when the scheduler was killed, and how often. */
  readonly killedIn: Readonly<Record<string, number>>;
  readonly seconds: number;
}

interface Order {
  readonly image: string;
  readonly source: string;
  readonly target: string;
  readonly driver: string;
  readonly content: Buffer;
  readonly requestId: string;
}

const DRIVERS = [
  ['resume', 50],
  ['silent', 30],
  ['none', 12],
  ['broken', 8],
] as const;
const IMAGE_BYTES_MIN = 64 * 1024;
const IMAGE_BYTES_SPREAD = 256 * 1024;
const END_MAX_MS = 300_000;
const SUBMITTERS = 4;

const pickDriver = (random: Random): string => {
  let left = random.below(100);
  for (const [name, percent] of DRIVERS) {
    if (left < percent) return name;
    left -= percent;
  }
  return 'resume';
};

const makeOrders = (cloud: Cloud, count: number, random: Random): readonly Order[] =>
  Array.from({ length: count }, (_, index) => {
    const from = random.below(cloud.names.length);
    const to = (from + 1 + random.below(cloud.names.length - 1)) % cloud.names.length;
    const content = Buffer.alloc(IMAGE_BYTES_MIN + 4096 * random.below(IMAGE_BYTES_SPREAD / 4096));
    random.fill(content);
    const image = `vm${index}.raw`;
    const source = cloud.names[from]!;
    writeFileSync(cloud.hosts.get(source)!.daemon.below(image), content);
    // One of each kind at least, however few there are.
    const driver = DRIVERS[index]?.[0] ?? pickDriver(random);
    return { image, source, target: cloud.names[to]!, driver, content, requestId: `order-${index}` };
  });

/** Calls until the scheduler answers: it may be dead at the moment. */
const insisting = async <T>(call: () => Promise<T>): Promise<T> => {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const code = error instanceof MigrateFsError ? error.code : '';
      if (!['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED'].includes(code)) throw error;
      await sleep(50);
    }
  }
};

const countBy = (words: readonly string[]): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
};

const submitAll = async (
  t: Teardown,
  cloud: Cloud,
  orders: readonly Order[],
): Promise<ReadonlyMap<string, Order>> => {
  const client = cloud.scheduler.connect(t);
  const byTask = new Map<string, Order>();
  const left = [...orders];
  const worker = async (): Promise<void> => {
    for (let order = left.shift(); order; order = left.shift()) {
      const { image, source, target, driver, requestId } = order;
      const { id } = await insisting(() =>
        client.submit({
          requestId,
          vm: image.replace('.raw', ''),
          images: [image],
          source,
          target,
          driver,
          priority: 0,
          important: false,
          writeRate: 0,
          insist: false,
        }),
      );
      byTask.set(id, order);
    }
  };
  await Promise.all(Array.from({ length: SUBMITTERS }, worker));
  return byTask;
};

/** States of the tasks that were under way when the scheduler was killed, by what is on disk. */
const activeStates = async (cloud: Cloud): Promise<readonly string[]> => {
  await using store = await TaskStore.open(join(cloud.scheduler.folder, 'queue'));
  return store
    .tasks()
    .map(({ state }) => state.kind)
    .filter((kind) => kind !== 'waiting' && !isTaskFinal(kind));
};

/** Kills the scheduler spread over the work, some of the times while it starts. */
const killAgainAndAgain = async (
  cloud: Cloud,
  { kills, tasks, say = () => undefined }: KillsOptions,
  random: Random,
): Promise<readonly string[]> => {
  const killedIn: string[] = [];
  for (let kill = 1; kill <= kills; kill++) {
    const due = Math.floor(((kill - 1) * tasks * 0.8) / kills);
    const progress = (): number => cloud.traces().filter(({ what }) => what === 'begun').length;
    await waitFor(() => progress() >= due, `${due} drivers have begun, at ${progress()}`, END_MAX_MS);
    await sleep(random.below(400));
    await cloud.scheduler.kill();
    killedIn.push(...(await activeStates(cloud)));
    say(`kill ${kill} of ${kills} after ${progress()} drivers`);
    const begun = cloud.scheduler.begin();
    if (random.chance(20)) {
      await sleep(random.below(500));
      await cloud.scheduler.kill();
      await begun;
      await cloud.scheduler.restart();
    } else await begun;
  }
  return killedIn;
};

const checkTraces = (cloud: Cloud, task: TaskSnapshot, faults: string[]): void => {
  const own = cloud.traces().filter((line) => line.task === task.id);
  const count = (what: string): number => own.filter((line) => line.what === what).length;
  const expected =
    task.driver === 'none'
      ? { begun: 0, moved: 0, 'rolled-back': 0 }
      : task.driver === 'broken'
        ? { begun: 1, moved: 0, 'rolled-back': 1 }
        : { begun: 1, moved: 1, 'rolled-back': 0 };
  for (const [what, times] of Object.entries(expected))
    if (count(what) !== times) faults.push(`${task.id} (${task.driver}): ${what} ${count(what)} times`);
};

const checkImage = async (
  cloud: Cloud,
  task: TaskSnapshot,
  { image, source, target, driver, content }: Order,
  faults: string[],
): Promise<void> => {
  const moved = driver !== 'broken';
  const [here] = await cloud.hosts.get(source)!.client.describeImages([image]);
  const [there] = await cloud.hosts.get(target)!.client.describeImages([image]);
  const roleOf = (description: object): string => ('role' in description ? String(description.role) : 'none');
  const roles = `${roleOf(here!)} > ${roleOf(there!)}`;
  if (roles !== (moved ? 'fenced > owner' : 'owner > none'))
    faults.push(`${task.id} (${driver}): ${image} is ${roles}`);
  const file = cloud.hosts.get(moved ? target : source)!.daemon.below(image);
  const from = driver === 'resume' ? RESUME_BYTES : 0;
  if (!readFileSync(file).subarray(from).equals(content.subarray(from)))
    faults.push(`${task.id} (${driver}): ${image} differs from what it was`);
};

const checkMigrations = async (cloud: Cloud, faults: string[]): Promise<void> => {
  for (const [name, { client }] of cloud.hosts) {
    const own = (await client.list()).filter(({ role }) => role === 'source');
    for (const [image, times] of Object.entries(
      countBy(own.flatMap(({ images }) => images.map((i) => i.name))),
    ))
      if (times !== 1) faults.push(`${name} migrated ${image} ${times} times`);
    for (const { id, state, requestId } of own)
      if (!['completed', 'cancelled'].includes(state) || requestId === undefined)
        faults.push(`${name}: migration ${id} (${requestId ?? 'of nobody'}) is ${state}`);
  }
};

/** Submits, kills, waits for the end, and looks at everything that must hold then. */
export const runKills = async (t: Teardown, options: KillsOptions): Promise<KillsResult> => {
  const began = performance.now();
  const random = new Random(options.seed);
  const cloud = await startCloud(t, {
    hosts: options.hosts,
    limits: { 'per-host': 3, 'per-link': 6, 'moves-per-host': 2 },
  });
  const orders = makeOrders(cloud, options.tasks, random);
  const client = cloud.scheduler.connect(t);
  const submitting = submitAll(t, cloud, orders);
  const killedIn = await killAgainAndAgain(cloud, options, random);
  const byTask = await submitting;
  const faults: string[] = [];
  if (byTask.size !== orders.length) faults.push(`${byTask.size} tasks for ${orders.length} orders`);
  let tasks: readonly TaskSnapshot[] = [];
  await waitFor(
    async () => {
      tasks = (await insisting(() => client.list({ states: [], limit: 1000 }))).tasks;
      return tasks.length >= orders.length && tasks.every(({ state }) => isTaskFinal(state));
    },
    'every task has ended',
    END_MAX_MS,
  ).catch((error: Error) => {
    const open = tasks.filter(({ state }) => !isTaskFinal(state));
    throw new Error(
      `${error.message}: ${open.map(({ id, state, reason }) => `${id} ${state} ${reason}`).join('; ')}`,
    );
  });
  if (tasks.length !== orders.length) faults.push(`${tasks.length} tasks for ${orders.length} orders`);
  for (const task of tasks) {
    const order = byTask.get(task.id)!;
    const wanted = order.driver === 'broken' ? 'failed' : 'done';
    if (task.state !== wanted) faults.push(`${task.id} (${order.driver}) is ${task.state}: ${task.reason}`);
    if (task.attempt !== 1) faults.push(`${task.id} (${order.driver}) needed ${task.attempt} attempts`);
    const decisions = await client.decisions(task.id);
    const ends = decisions.filter(({ state }) => state !== undefined && isTaskFinal(state));
    if (ends.length !== 1) faults.push(`${task.id} ended ${ends.length} times`);
    checkTraces(cloud, task, faults);
    await checkImage(cloud, task, order, faults);
  }
  await checkMigrations(cloud, faults);
  if (cloud.scheduler.stderr !== '') faults.push(`on stderr: ${cloud.scheduler.stderr}`);
  const code = await cloud.scheduler.stop();
  if (code !== 0) faults.push(`the scheduler ended with ${code}`);
  return {
    faults,
    ends: countBy(tasks.map(({ driver, state }) => `${driver} ${state}`)),
    killedIn: countBy(killedIn),
    seconds: (performance.now() - began) / 1000,
  };
};
