/** A scheduler on a real queue, with daemons, drivers, links and time that do as a test says. */
import { admit } from '../../src/broker/policy/admission.js';
import { plan } from '../../src/broker/policy/plan.js';
import { checkTopology } from '../../src/broker/policy/topology.js';
import { MoveSlots } from '../../src/broker/scheduler/move-slots.js';
import type { SchedulerOptions } from '../../src/broker/scheduler/scheduler.js';
import { Scheduler } from '../../src/broker/scheduler/scheduler.js';
import { TaskBook } from '../../src/broker/scheduler/task-book.js';
import { TaskStore } from '../../src/broker/scheduler/task-store.js';
import type { HotSpots, LinkLoad } from '../../src/leaves/hot-spots.js';
import type { TaskRequest, TaskSnapshot } from '../../src/leaves/scheduler.js';
import { millis } from '../../src/leaves/units.js';
import { FakeDriver, FakeHosts } from './fake-hosts.js';
import { ManualClock } from './manual-clock.js';
import type { Teardown } from './scratch.js';
import { scratchDir } from './scratch.js';

const STEP_MS = 100;
const STEPS_MAX = 20_000;
/** 2030-01-01: instants in reasons are of that day. */
export const BEGIN = Date.UTC(2030, 0, 1, 12, 0, 0);

/** Links that are hot when a test says so. */
class FakeHotSpots implements HotSpots {
  #loads: readonly LinkLoad[] = [];
  readonly #listeners = new Set<(load: LinkLoad) => void>();

  loads(): readonly LinkLoad[] {
    return this.#loads;
  }

  watch(listener: (load: LinkLoad) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  set(loads: readonly LinkLoad[]): void {
    this.#loads = loads;
    for (const listener of this.#listeners) for (const load of loads) listener(load);
  }
}

export const requestExample: TaskRequest = {
  vm: 'vm1',
  images: ['vm1.raw'],
  source: 'a',
  target: 'b',
  priority: 0,
  important: false,
  writeRate: 0,
  driver: 'fake',
  insist: false,
};

/** Hosts a, b and c behind one switch, links of 1 Gbit/s with the names of the hosts. */
export class SchedulerWorld {
  readonly clock = new ManualClock(BEGIN);
  readonly hosts = new FakeHosts();
  readonly driver = new FakeDriver();
  readonly hotSpots = new FakeHotSpots();
  readonly logged: { level: string; message: string; fields?: object | undefined }[] = [];
  readonly #store: TaskStore;
  readonly #overrides: Partial<SchedulerOptions>;
  scheduler!: Scheduler;

  private constructor(store: TaskStore, overrides: Partial<SchedulerOptions>) {
    this.#store = store;
    this.#overrides = overrides;
  }

  static async open(t: Teardown, overrides: Partial<SchedulerOptions> = {}): Promise<SchedulerWorld> {
    const store = await TaskStore.open(scratchDir(t, 'queue'));
    const world = new SchedulerWorld(store, overrides);
    world.begin();
    t.teardown(async () => {
      await world.scheduler.close();
      await store.close();
    });
    for (const name of ['vm1.raw', 'vm2.raw', 'vm3.raw', 'vm4.raw']) world.hosts.put('a', name);
    return world;
  }

  /** A scheduler that knows what is on disk. */
  begin(): void {
    const { clock, hosts, driver, hotSpots } = this;
    const log: SchedulerOptions['log'] = (level, message, fields) =>
      void this.logged.push({ level, message, fields });
    const ends = ['a', 'b', 'c'];
    const topology = checkTopology({
      hosts: ends.map((name) => ({ name, control: `${name}:7070`, data: `${name}:7071` })),
      switches: ['tor'],
      links: ends.map((name) => ({ name: `link-${name}`, between: [name, 'tor'], capacity: '1Gbit/s' })),
    });
    this.scheduler = new Scheduler({
      book: new TaskBook({ store: this.#store, clock, log, vmmTime: millis(1000) }),
      hosts,
      drivers: new Map([['fake', driver]]),
      moves: new MoveSlots(1),
      clock,
      log,
      storeId: this.#store.id,
      attemptsMax: 3,
      answerWait: millis(600_000),
      random: () => 0.5,
      firstWriteWait: millis(5000),
      vmmTime: millis(1000),
      paths: topology,
      checkHost: (name) => void topology.host(name),
      hotSpots,
      plan,
      admit,
      limits: { perHost: 2, perLink: 2, share: 0.8 },
      tasksMax: 100,
      defaultDriver: 'none',
      ...this.#overrides,
    });
    this.scheduler.begin();
  }

  /** The scheduler ends with everything as it is on disk, and another one takes over. */
  async restart(): Promise<void> {
    await this.scheduler.close();
    this.begin();
  }

  submit(request: Partial<TaskRequest> = {}): Promise<TaskSnapshot> {
    return this.scheduler.submit({ ...requestExample, ...request });
  }

  /** Lets time pass until `truth` holds; rejects when it does not for half an hour of it. */
  async until(truth: () => boolean, what: string): Promise<void> {
    for (let step = 0; step < STEPS_MAX; step++) {
      if (truth()) return;
      // The queue of moves has timers of its own, in real time.
      if (step % 10 === 9) await new Promise((resolve) => setTimeout(resolve, 1));
      await this.clock.advance(STEP_MS);
    }
    throw new Error(`not within ${(STEPS_MAX * STEP_MS) / 1000} s: ${what}\n${this.#history()}`);
  }

  async untilState(id: string, state: TaskSnapshot['state']): Promise<TaskSnapshot> {
    await this.until(() => this.scheduler.get(id).state === state, `task ${id} is ${state}`);
    return this.scheduler.get(id);
  }

  /** States that a task has been in, in order. */
  states(id: string): readonly string[] {
    return this.scheduler.decisions(id).flatMap(({ state }) => state ?? []);
  }

  texts(id: string): readonly string[] {
    return this.scheduler.decisions(id).map(({ text }) => text);
  }

  #history(): string {
    return this.scheduler
      .list({ states: [], limit: 10 })
      .tasks.map(({ id }) => `${id}: ${this.texts(id).join(' | ')}`)
      .join('\n');
  }
}
