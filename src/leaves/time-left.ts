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
export const timeLeftWith = (load: TransferLoad, change: Change): TimeLeft | undefined => {
  const { netRate = load.netRate, writeLimit = Number.POSITIVE_INFINITY } = change;
  const share = load.writeRate > writeLimit ? writeLimit / load.writeRate : 1;
  return timeLeft({
    ...load,
    netRate,
    writeRate: load.writeRate * share,
    dirtyRate: load.dirtyRate * share,
    dirtyDeviation: load.dirtyDeviation * share,
  });
};

/** Undefined: not known, or it never gets there at these rates. */
export const timeLeft = (load: TransferLoad): TimeLeft | undefined => {
  const drain = load.netRate - (load.converging ? 0 : load.dirtyRate);
  if (load.left === 0) return { expected: millis(0), low: millis(0), high: 0 };
  if (drain <= 0) return undefined;
  const expected = millis((load.left / drain) * 1000);
  return { expected, low: expected, high: expected };
};
