/** Random guests of the fluid simulator, alone on a link, and what a constant disk limit would have done for them. */
import fc from 'fast-check';
import { DISK_CONFIRMATIONS, DISK_MARGIN, DISK_SLACK } from '../../src/broker/policy/disk-limit.js';
import { bytesPerSecond, millis, UNLIMITED } from '../../src/leaves/units.js';
import type { FluidMigration, FluidSample } from './fluid-simulator.js';
import { simulate } from './fluid-simulator.js';
import { MB, termsOf } from './policy-cases.js';

/** From this part of the time to the deadline on, the guest wants `writes` times what the link carries. */
interface Stage {
  readonly from: number;
  readonly writes: number;
}

export interface FluidGuest {
  /** MB/s. */
  readonly link: number;
  /** What the link takes for all of the image. */
  readonly seconds: number;
  /** Milliseconds of the hypervisor. */
  readonly vmm: number;
  /** The deadline, in parts of what an idle guest needs; 2 s are added. */
  readonly spare: number;
  /** In order, the first from 0 on. */
  readonly stages: readonly Stage[];
}

/** Hundredths: of all doubles between 0 and 2 most are next to 0. */
const hundredths = (min: number, max: number): fc.Arbitrary<number> =>
  fc.integer({ min, max }).map((each) => each / 100);
const writes = hundredths(0, 200);
const guestWith = (stages: fc.Arbitrary<readonly Stage[]>): fc.Arbitrary<FluidGuest> =>
  fc.record({
    link: fc.integer({ min: 10, max: 100 }),
    seconds: fc.integer({ min: 10, max: 60 }),
    vmm: fc.integer({ min: 500, max: 5_000 }),
    spare: hundredths(100, 250),
    stages,
  });

export const steadyGuest = guestWith(writes.map((each) => [{ from: 0, writes: each }]));
/** Quiet in one of four stages. */
export const changingGuest = guestWith(
  fc
    .tuple(
      writes,
      fc.array(
        fc.record({
          from: hundredths(2, 90),
          writes: fc.oneof({ weight: 3, arbitrary: writes }, { weight: 1, arbitrary: fc.constant(0) }),
        }),
        { minLength: 1, maxLength: 3 },
      ),
    )
    .map(([first, later]) => [{ from: 0, writes: first }, ...later.sort((a, b) => a.from - b.from)]),
);

/** Seconds throughout. */
export class GuestRun {
  readonly deadline: number;
  readonly period: number;
  readonly finished: number;
  /** When it was limited, having been free. */
  readonly limitedAt: readonly number[];
  readonly netLimited: boolean;
  readonly #guest: FluidGuest;
  readonly #samples: readonly FluidSample[];

  constructor(guest: FluidGuest) {
    this.#guest = guest;
    this.deadline = (guest.seconds + guest.vmm / 1000) * guest.spare + 2;
    this.period = Math.max(1, this.deadline / 50);
    const { samples, finished } = this.#simulate({ period: this.period, writes: (at) => this.#wants(at) });
    this.#samples = samples;
    this.finished = finished.get('vm') ?? Number.POSITIVE_INFINITY;
    this.limitedAt = samples.flatMap(({ at, decision }, i) =>
      decision && decision.diskLimit !== UNLIMITED && this.#limitAfter(i - 1) === UNLIMITED ? [at] : [],
    );
    this.netLimited = samples.some(({ decision }) => decision && decision.netLimit !== UNLIMITED);
  }

  get inTime(): boolean {
    return this.finished <= this.deadline;
  }

  /** Times at which the guest begins to want more or less. */
  get changes(): readonly number[] {
    return this.#guest.stages.slice(1).map(({ from }) => from * this.deadline);
  }

  /** The first decision at which a guest may be limited after a moment. */
  firstChance(after: number): number {
    return (Math.floor(after / this.period) + DISK_CONFIRMATIONS) * this.period;
  }

  /**
   * Whether a guest held at the disk floor from a decision on, and until then treated as it was, ends in time with what
   * Expression 1 has to spare: a tenth of the time from there on, and 2 s or two periods.
   */
  couldBeKept(since: number): boolean {
    const { diskFloor } = termsOf();
    const { finished } = this.#simulate({
      writes: (at) => Math.min(this.#wants(at), at <= since ? this.#limitAt(at) : diskFloor),
    });
    const end = finished.get('vm') ?? Number.POSITIVE_INFINITY;
    const slack = Math.max(DISK_SLACK / 1000, 2 * this.period);
    return end + Math.max(0, end - since) * DISK_MARGIN + slack <= this.deadline;
  }

  /** In force until the decision at that time. */
  #limitAt(at: number): number {
    return this.#limitAfter(this.#samples.findIndex((sample) => sample.at >= at) - 1);
  }

  #limitAfter(index: number): number {
    return this.#samples[index]?.decision?.diskLimit ?? UNLIMITED;
  }

  #wants(at: number): number {
    const { stages, link } = this.#guest;
    return stages.findLast(({ from }) => from * this.deadline <= at)!.writes * link * MB;
  }

  #simulate(change: Partial<FluidMigration>): ReturnType<typeof simulate> {
    const { link, seconds, vmm } = this.#guest;
    return simulate({
      capacities: new Map([['link', link * MB]]),
      endsAt: this.deadline + 1,
      migrations: [
        {
          id: 'vm',
          links: ['link'],
          size: link * seconds * MB,
          startsAt: 0,
          deadline: this.deadline,
          terms: termsOf({ step: bytesPerSecond((link * MB) / 10), vmmTime: millis(vmm) }),
          ...change,
        },
      ],
    });
  }
}
