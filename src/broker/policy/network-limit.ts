/** Algorithm 2 of the paper (AIMD), with the holes closed that DESIGN 2 names. */
import type { BrokerTerms } from '../../leaves/broker.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import { bytesPerSecond, UNLIMITED } from '../../leaves/units.js';
import type { NetworkMemory } from './decision.js';

/**
 * Without a limit in force the last rate that caused no congestion is a measured one, and noise makes it a little lower
 * than the present one: going back to it has to be worth this part of the rate, or it is halved at once.
 */
const RETURN_WORTH = 0.1;

/**
 * Who has nothing to give may go on as before, with this factor to what was sent: on a busy link a limit is rarely used
 * up, and lowered to what was sent each time it would sink period by period into danger.
 */
const HEADROOM = 1.25;

export type NetworkAction = 'none' | 'reduce' | 'hold' | 'raise' | 'remove';

export interface NetworkLimit {
  readonly limit: BytesPerSecond;
  readonly memory: NetworkMemory;
  readonly action: NetworkAction;
}

export interface NetworkUse {
  /** Bytes per second that the target acknowledges. */
  readonly rate: number;
  /** What it needs to stay out of danger: a reduction stops there. */
  readonly keep: number;
  /** It sends as fast as it may. Otherwise its rate says nothing of the network: paused, or in sync. */
  readonly copying: boolean;
}

type NetworkTerms = Pick<BrokerTerms, 'quietPeriods' | 'step' | 'floor'>;

const INITIAL: NetworkMemory = { lastAction: 'increase', quietPeriods: 0 };

const atLeast = (floor: BytesPerSecond, rate: number): BytesPerSecond =>
  bytesPerSecond(Math.max(floor, Math.round(rate)));

const reduced = (
  terms: NetworkTerms,
  use: NetworkUse,
  limit: BytesPerSecond,
  memory: NetworkMemory,
): BytesPerSecond => {
  const limited = limit !== UNLIMITED;
  // It sends nothing that could be reduced; once it does, it begins where an increase would.
  if (!use.copying) return limited ? limit : atLeast(terms.floor, terms.step);
  const rate = Math.max(Math.min(use.rate, limit), terms.floor);
  if (use.keep >= rate) return atLeast(terms.floor, Math.min(limit, rate * HEADROOM));
  const { lastAction, lastOk } = memory;
  const { keep } = use;
  const worth = limited ? rate : rate * (1 - RETURN_WORTH);
  if (lastAction === 'increase' && lastOk !== undefined && lastOk < worth)
    return atLeast(terms.floor, Math.max(lastOk, keep));
  return atLeast(terms.floor, Math.max(rate / 2, keep));
};

/**
 * The next limit. Without `backoff` a limit is held for one period, then raised by the step each period, and removed in
 * the period `quietPeriods + 1`, counted from the first quiet one: held and raised from the limit, not from the rate,
 * because a migration that sends less for reasons of its own would otherwise be limited to that. Where no limit is in
 * force and nobody wants bandwidth there is none.
 */
export const networkLimit = (
  terms: NetworkTerms,
  backoff: boolean,
  use: NetworkUse,
  limit: BytesPerSecond,
  memory: NetworkMemory = INITIAL,
): NetworkLimit => {
  const lastOk = memory.lastOk === undefined ? {} : { lastOk: memory.lastOk };
  if (backoff) {
    const next = reduced(terms, use, limit, memory);
    return { limit: next, memory: { lastAction: 'reduce', quietPeriods: 0, ...lastOk }, action: 'reduce' };
  }
  const quietPeriods = Math.min(memory.quietPeriods + 1, terms.quietPeriods + 1);
  if (limit === UNLIMITED) {
    const ok = use.copying ? { lastOk: atLeast(terms.floor, use.rate) } : lastOk;
    return { limit, memory: { lastAction: 'increase', quietPeriods, ...ok }, action: 'none' };
  }
  const next = { lastAction: 'increase', lastOk: limit, quietPeriods } as const;
  if (quietPeriods > terms.quietPeriods) return { limit: UNLIMITED, memory: next, action: 'remove' };
  if (memory.lastAction === 'reduce') return { limit, memory: next, action: 'hold' };
  return { limit: atLeast(terms.floor, limit + terms.step), memory: next, action: 'raise' };
};
