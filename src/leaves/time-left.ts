import { convergence, secondsLeft } from './copy-forecast.js';
import type { Bytes, Millis } from './units.js';
import { millis } from './units.js';

/** What is known of the copying of one migration at one moment; rates in bytes per second, smoothed. */
export interface TransferLoad {
  /** Dirty, or not yet acknowledged by the target. */
  readonly left: Bytes;
  /** What the images allocate: no more than this can be dirty. */
  readonly allocated: Bytes;
  /** Payload bytes that the target acknowledged. */
  readonly netRate: number;
  /** Distinct blocks that became dirty. */
  readonly dirtyRate: number;
  /** What the guests write. */
  readonly writeRate: number;
  /** Standard deviations of the two rates over the smoothing window. */
  readonly netDeviation: number;
  readonly dirtyDeviation: number;
  /** Clean blocks stay clean: the last part of dirty resend, and after it. */
  readonly converging: boolean;
  /** The last three are absent where it is not known: then all of it is taken to be alike everywhere. */
  readonly begunWith?: Bytes;
  /** In the order in which they are copied. */
  readonly segments?: readonly SegmentLoad[];
  readonly writes?: WritePattern;
}

/** A part of the images; the copier's place is between two of them. */
export interface SegmentLoad {
  /** The present round of the copier has not come to it. */
  readonly ahead: boolean;
  readonly allocated: Bytes;
  readonly dirty: Bytes;
  /** Blocks that the guests have written to since the migration began. */
  readonly touched: Bytes;
}

/** How the guests write. Shares, no rates, so that it holds for more or fewer writes of the same kind as well. */
export interface WritePattern {
  /** Bytes of blocks written to, clean or dirty, for each byte written; writes in a row to one block count once. */
  readonly blocksPerByte: number;
  /** Bytes that are written to at random, found so far or not. */
  readonly workingSet: Bytes;
  /** The part that is written in order, to blocks not written to before: 0 to 1. */
  readonly sequential: number;
  /** Of what is written, the part that is mirrored: 0 to 1. */
  readonly mirrored: number;
}

/** Time until in sync, with a band that the real one is expected in. */
export interface TimeLeft {
  readonly expected: Millis;
  readonly low: Millis;
  /** `Infinity` where the slower end of the band never gets there. */
  readonly high: number;
}

/** What would be changed about a load. */
export interface Change {
  /** The network carries this instead. */
  readonly netRate?: number;
  /** The guests write no more than this. */
  readonly writeLimit?: number;
}

/** `timeLeft` as it would be at another network rate, or with the guests' writes limited. */
export const timeLeftWith = (load: TransferLoad, change: Change): TimeLeft | undefined =>
  timeLeft(changed(load, change));

/** Its `expected` alone, in milliseconds: a third of the work, for who compares many changes. */
export const expectedLeftWith = (load: TransferLoad, change: Change): Millis | undefined => {
  const given = changed(load, change);
  if (given.left === 0) return millis(0);
  if (!(given.netRate > 0)) return undefined;
  const tame = tamed(given);
  return tame.netRate === 0 ? millis(MILLIS_MAX) : inMillis(courseSeconds(tame, 1, 1));
};

const changed = (load: TransferLoad, change: Change): TransferLoad => {
  const { netRate = load.netRate, writeLimit = Number.POSITIVE_INFINITY } = change;
  const share = load.writeRate > writeLimit ? writeLimit / load.writeRate : 1;
  return {
    ...load,
    netRate,
    writeRate: load.writeRate * share,
    dirtyRate: load.dirtyRate * share,
    dirtyDeviation: load.dirtyDeviation * share,
  };
};

/** What the model itself is wrong by, even for a load that never changes. */
const MODEL_ERROR = 0.03;
/** A rate that differs now is taken to differ for this long: what is left averages over longer times. */
const CORRELATION_SECONDS = 4;
/** Width of the band, in standard deviations. */
const BAND = 2;
/** Estimates beyond it are not told apart. */
const MILLIS_MAX = 100 * 365 * 86_400_000;

/** Bytes per second. Less is what smoothing leaves of a rate once nothing moves. */
const RATE_MIN = 1e-3;
/** More than any link or disk; the arithmetic stays finite. */
const RATE_MAX = 1e15;

/** With rates that can be reckoned with. */
const tamed = (load: TransferLoad): TransferLoad => {
  const { netRate, dirtyRate, writeRate, netDeviation, dirtyDeviation, writes } = load;
  const rate = (value: number): number => (value < RATE_MIN ? 0 : Math.min(value, RATE_MAX));
  return {
    ...load,
    netRate: rate(netRate),
    dirtyRate: rate(dirtyRate),
    writeRate: rate(writeRate),
    netDeviation: rate(netDeviation),
    dirtyDeviation: rate(dirtyDeviation),
    ...(writes && { writes: { ...writes, blocksPerByte: Math.min(writes.blocksPerByte, RATE_MAX) } }),
  };
};

/** Undefined: nothing was acknowledged yet, so nothing is known. */
export const timeLeft = (given: TransferLoad): TimeLeft | undefined => {
  if (given.left === 0) return { expected: millis(0), low: millis(0), high: 0 };
  if (!(given.netRate > 0)) return undefined;
  const load = tamed(given);
  if (load.netRate === 0)
    return { expected: millis(MILLIS_MAX), low: millis(MILLIS_MAX), high: Number.POSITIVE_INFINITY };
  const expected = courseSeconds(load, 1, 1);
  const averaging = Math.sqrt(CORRELATION_SECONDS / (CORRELATION_SECONDS + expected));
  const net = BAND * averaging * relative(load.netDeviation, load.netRate);
  const dirty = BAND * averaging * relative(load.dirtyDeviation, load.dirtyRate);
  const best = courseSeconds(load, 1 + net, Math.max(0, 1 - dirty));
  const worst = net < 1 ? courseSeconds(load, 1 - net, 1 + dirty) : Number.POSITIVE_INFINITY;
  return {
    expected: inMillis(expected),
    low: inMillis(Math.min(best, expected) * (1 - MODEL_ERROR)),
    high: Number.isFinite(worst)
      ? inMillis(Math.max(worst, expected) * (1 + MODEL_ERROR))
      : Number.POSITIVE_INFINITY,
  };
};

const inMillis = (seconds: number): Millis => millis(Math.min(seconds * 1000, MILLIS_MAX));

const relative = (deviation: number, rate: number): number =>
  deviation > 0 && rate > 0 ? deviation / rate : 0;

const courseSeconds = (load: TransferLoad, netFactor: number, writeFactor: number): number => {
  const allocated = Math.max(load.allocated, load.left);
  const { segments } = load;
  if (!segments) return evenSeconds(load, allocated, netFactor, writeFactor);
  const { rewrites, flowNow, flow, workingSets } = behaviour(load, segments, allocated);
  const dirty = segments.reduce((sum, segment) => sum + segment.dirty, 0);
  const writeRate = load.writeRate * writeFactor;
  return secondsLeft({
    stretches: segments.map(({ ahead, dirty }, i) => ({ ahead, dirty, workingSet: workingSets[i]! })),
    inFlight: Math.max(0, load.left - dirty),
    allocated,
    net: load.netRate * netFactor,
    writeRate,
    rewrites: rewrites * writeFactor,
    flowNow: flowNow * writeFactor,
    flow: flow * writeFactor,
    converging: load.converging,
    mirrorRate: writeRate * (load.writes?.mirrored ?? 0),
    begunWith: Math.max(load.begunWith ?? allocated, 1),
  });
};

/** Into how many parts the images are taken apart: enough for what is written at one place and not at another. */
export const SEGMENTS = 16;
/** A migration that does not drain by itself is made to: rounds in vain, then at least half of the link. */
const DRAIN_MIN = 0.4;

/**
 * Without segments: what becomes dirty is proportional to what is clean, left' = k (allocated - left) - net, but for the
 * least that it drains by. Without the rounds it is less exact, and exactly monotone in what is left and in each rate.
 */
const evenSeconds = (
  load: TransferLoad,
  allocated: number,
  netFactor: number,
  writeFactor: number,
): number => {
  const { left, converging } = load;
  const net = load.netRate * netFactor;
  if (converging) {
    const course = { net, writeRate: load.writeRate * writeFactor, allocated, flow: 0, mirrorRate: 0 };
    return convergence(course, allocated, left);
  }
  const k = (load.dirtyRate * writeFactor) / Math.max(allocated - left, allocated * CLEAN_SHARE_MIN);
  if (k * allocated <= net * NEGLIGIBLE) return left / net;
  // Below this much, only the least drains.
  const limit = Math.min(Math.max(allocated - ((1 - DRAIN_MIN) * net) / k, 0), left);
  const least = DRAIN_MIN * net;
  // No less than the least: of two rates that are far apart the difference is lost in rounding.
  const drain = Math.max(net - k * (allocated - limit), least);
  const above = limit < left ? Math.log1p((k * (left - limit)) / drain) / k : 0;
  return above + limit / least;
};

interface Behaviour {
  /** As in `CopyCourse`. */
  readonly rewrites: number;
  readonly flowNow: number;
  readonly flow: number;
  /** Of each segment. */
  readonly workingSets: readonly number[];
}

/** What is clean counts as this part of the images at least: next to nothing says nothing. */
const CLEAN_SHARE_MIN = 0.02;
/** Of the network rate: what becomes dirty changes nothing. */
const NEGLIGIBLE = 1e-9;
const behaviour = (load: TransferLoad, segments: readonly SegmentLoad[], allocated: number): Behaviour => {
  const { writes, writeRate, dirtyRate, converging } = load;
  const blockRate = writes ? Math.min(writeRate * writes.blocksPerByte, RATE_MAX) : 0;
  const touched = segments.reduce((sum, segment) => sum + segment.touched, 0);
  // What dirties blocks without writing to them (truncation, allocation) has no pattern.
  if (!writes || touched === 0 || blockRate < dirtyRate / 2) return everywhere(load, segments, allocated);
  if (blockRate <= 0) return { rewrites: 0, flowNow: 0, flow: 0, workingSets: segments.map(() => 0) };
  const sequential = converging ? 0 : writes.sequential;
  // What is still to be found lies where the rest was.
  const unfound = Math.max(1, writes.workingSet / touched);
  const workingSets = segments.map((segment) =>
    Math.min(segment.touched * unfound, Math.max(segment.allocated, segment.touched)),
  );
  const workingSet = workingSets.reduce((sum, each) => sum + each, 0);
  return {
    rewrites: ((1 - sequential) * blockRate) / workingSet,
    flowNow: sequential * Math.min(dirtyRate, blockRate),
    flow: sequential * blockRate,
    workingSets,
  };
};

/** The working set is everything; what becomes dirty is proportional to what is clean. */
const everywhere = (
  { left, dirtyRate }: TransferLoad,
  segments: readonly SegmentLoad[],
  allocated: number,
): Behaviour => {
  const clean = Math.max(allocated - left, allocated * CLEAN_SHARE_MIN);
  return {
    rewrites: dirtyRate / clean,
    flowNow: 0,
    flow: 0,
    workingSets: segments.map((segment) => segment.allocated),
  };
};
