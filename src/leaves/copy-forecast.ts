/**
 * How the copying of a migration goes on: rounds through the images, then the last part (see the source's copy-round
 * and image-group). Bytes, seconds, and bytes per second throughout.
 *
 * Guests are taken to write at random to a *working set*, of which each block is written to again at the rate
 * `rewrites` (per second): the clean part of it shrinks by exp(-rewrites t). A sequential writer meets clean blocks
 * only, `flow` bytes of them a second. A round passes one segment of the images after the other; a closed form for
 * each pass leaves a few hundred exponentials for an estimate.
 */

/** The last part begins once this little is dirty, or what the link moves in this time, */
export const CONVERGE_BYTES = 1024 * 1024;
export const CONVERGE_SECONDS = 0.02;
/** or after a round that leaves more than this part of what it began with: it will not get there by itself. */
export const ROUND_SHRINK_MIN = 0.8;
/** Near the threshold it is open whether another round comes: this far to both sides, both count in part. */
const SHRINK_DOUBT = 0.02;
/** A round leaves less than 0.8 of what it began with, so even 2^53 bytes are little after this many. */
const ROUNDS_MAX = 160;
/** Beyond it everything in the working set is dirty, and `expm1` would overflow. */
const EXPONENT_MAX = 500;
/** Of the network rate: fewer writes change nothing. */
const WRITES_MIN = 1e-9;
/** Below it nothing is rewritten while it is copied. */
const EXPONENT_MIN = 1e-6;

/** Images from some offset to another, in the order in which they are copied. */
export interface Stretch {
  /** The present round has not come to it. */
  readonly ahead: boolean;
  readonly dirty: number;
  readonly workingSet: number;
}

export interface CopyCourse {
  readonly stretches: readonly Stretch[];
  /** Sent, and not acknowledged. */
  readonly inFlight: number;
  readonly allocated: number;
  readonly net: number;
  readonly writeRate: number;
  /** Per second. */
  readonly rewrites: number;
  /** Sequential writes to clean blocks, now and in later rounds. */
  readonly flowNow: number;
  readonly flow: number;
  readonly converging: boolean;
  /** Mirrored at present: the copies get no more than the rate without it. */
  readonly mirrorRate: number;
  /** What was left at the beginning of the round. */
  readonly begunWith: number;
}

export type LastPart = Pick<CopyCourse, 'net' | 'writeRate' | 'allocated' | 'flow' | 'mirrorRate'>;

/** Seconds until nothing is dirty. `net` is above 0. */
export const secondsLeft = (course: CopyCourse): number => {
  const sum = (part: (stretch: Stretch) => number): number =>
    course.stretches.reduce((total, stretch) => total + part(stretch), 0);
  const workingSet = sum((stretch) => stretch.workingSet);
  if (course.converging) return convergence(course, workingSet, course.inFlight + sum(({ dirty }) => dirty));
  let { begunWith } = course;
  const pass = new Passes(course);
  pass.round((index) => course.stretches[index]!.ahead, course.inFlight, course.flowNow);
  let expected = 0;
  let likely = 1;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const left = pass.left;
    const ends = likely * endOfRounds(course.net, left, begunWith);
    if (ends > 0) expected += ends * (pass.seconds + convergence(course, workingSet, left));
    likely -= ends;
    if (likely < 1e-6) return expected;
    begunWith = left;
    pass.round(() => true, 0, course.flow);
  }
  return expected + likely * pass.seconds;
};

/** From 0 (another round comes) to 1 (the last part begins). */
const endOfRounds = (net: number, left: number, begunWith: number): number => {
  if (left <= Math.max(CONVERGE_BYTES, net * CONVERGE_SECONDS)) return 1;
  const shrunk = left / begunWith;
  return Math.min(1, Math.max(0, (shrunk - ROUND_SHRINK_MIN + SHRINK_DOUBT) / (2 * SHRINK_DOUBT)));
};

/** What happens to each stretch while one after the other is copied. */
class Passes {
  readonly #net: number;
  readonly #rewrites: number;
  readonly #workingSets: readonly number[];
  /** Clean bytes of the working set at `#at`; from then on they become fewer. */
  readonly #clean: number[];
  readonly #at: number[];
  /** Dirty, but not written to again. */
  readonly #once: number[];
  #seconds = 0;
  #flowed = 0;

  constructor({ stretches, net, rewrites }: CopyCourse) {
    this.#net = net;
    this.#rewrites = rewrites;
    this.#workingSets = stretches.map(({ workingSet }) => workingSet);
    this.#clean = stretches.map(({ workingSet, dirty }) => Math.max(0, workingSet - dirty));
    this.#at = stretches.map(() => 0);
    this.#once = stretches.map(({ workingSet, dirty }) => Math.max(0, dirty - workingSet));
  }

  /** Since the beginning. */
  get seconds(): number {
    return this.#seconds;
  }

  get left(): number {
    return this.#workingSets.reduce(
      (sum, workingSet, i) => sum + this.#once[i]! + workingSet - this.#cleanNow(i),
      this.#flowed,
    );
  }

  /** Copies what is dirty in the stretches chosen, and what has flowed; `flow` makes more dirty meanwhile. */
  round(chosen: (index: number) => boolean, inFlight: number, flow: number): void {
    const begin = this.#seconds;
    this.#seconds += (inFlight + this.#flowed) / this.#net;
    for (let index = 0; index < this.#workingSets.length; index++) if (chosen(index)) this.#pass(index);
    this.#flowed = flow * (this.#seconds - begin);
  }

  #pass(index: number): void {
    const workingSet = this.#workingSets[index]!;
    const dirty = workingSet - this.#cleanNow(index);
    const seconds = this.#once[index]! / this.#net + this.#passSeconds(workingSet, dirty);
    this.#seconds += seconds;
    this.#once[index] = 0;
    // What was copied first was exposed longest: the mean of exp(-rewrites t) over the pass stays clean.
    const exposed = this.#rewrites * seconds;
    this.#clean[index] = exposed > EXPONENT_MIN ? (workingSet * -Math.expm1(-exposed)) / exposed : workingSet;
    this.#at[index] = this.#seconds;
  }

  /**
   * Of what lies ahead more and more becomes dirty: with a dirty share s(t) = 1 - (1 - s0) exp(-rewrites t) the pass is
   * over when the integral of net / (s workingSet) is 1.
   */
  #passSeconds(workingSet: number, dirty: number): number {
    const exponent = (this.#rewrites * workingSet) / this.#net;
    if (exponent < EXPONENT_MIN) return dirty / this.#net;
    return Math.log1p((dirty / workingSet) * Math.expm1(Math.min(exponent, EXPONENT_MAX))) / this.#rewrites;
  }

  #cleanNow(index: number): number {
    return this.#clean[index]! * Math.exp(-this.#rewrites * (this.#seconds - this.#at[index]!));
  }
}

/**
 * The last part: writes to clean blocks are mirrored, and copies have at least half of the link. What is mirrored is
 * m = min(net / 2, writes (1 - left / W)), so left' = m - net.
 */
export const convergence = (course: LastPart, workingSet: number, left: number): number => {
  const { net, writeRate, allocated, flow, mirrorRate } = course;
  const half = net / 2;
  const atLeast = left / (net - Math.min(mirrorRate, half));
  if (writeRate <= net * WRITES_MIN || left <= 0) return atLeast;
  const spread = Math.max(flow > 0 ? allocated : workingSet, left);
  // Below this much, the mirror takes its half.
  const limit = writeRate > half ? Math.min(spread * (1 - half / writeRate), left) : 0;
  const perByte = writeRate / spread;
  const spare = net - writeRate;
  // No less than half: of two rates that are far apart the difference is lost in rounding.
  const drain = Math.max(spare + perByte * limit, half);
  const shrinking = Math.log1p((perByte * (left - limit)) / drain) / perByte;
  return Math.max(atLeast, shrinking + limit / half);
};
