/** Algorithm 1 of the paper, one turn of it: pure, so that the broker and the simulator call the same function. */
import { isFinal } from '../../leaves/migration.js';
import { UNLIMITED } from '../../leaves/units.js';
import type { Case, Congestion, Decision, Observation } from './decision.js';
import { diskLimit } from './disk-limit.js';
import { isCopying, isMeasured, laxity, rateToKeep } from './laxity.js';
import { networkLimit } from './network-limit.js';
import { reasonOf } from './reason.js';

/**
 * - In danger (with an estimate): congestion is ignored, and the sharers of saturated links are to be asked.
 * - Otherwise whoever asks, and a hot link, make it back off by Algorithm 2.
 * - Once in sync what it sends are the guest's own writes: those are not slowed down for others.
 * - A migration past its deadline is in danger until it ends.
 */
export const decide = (
  subject: Case,
  observation: Observation,
  congestion: Congestion,
  previous: Decision | undefined,
): Decision => {
  const { terms } = subject;
  const { state, load } = observation;
  const found = laxity(subject, observation, previous);
  const inDanger = found.zone === 'danger' && found.ratio !== undefined;
  const wanted = congestion.hotLinks.length > 0 || congestion.askedBy.length > 0;
  const inSync = state === 'mirroring' || state === 'cutover' || isFinal(state);
  const limitBefore = previous?.netLimit ?? UNLIMITED;
  const network = networkLimit(
    terms,
    wanted && !inDanger && !inSync,
    { rate: load.netRate, keep: rateToKeep(subject, observation, found), copying: isCopying(state) },
    limitBefore,
    previous?.memory,
  );
  const askOn = inDanger && isMeasured(state) ? congestion.saturatedLinks : [];
  // What has just been taken away is not there to count on; what has just been given has to be seen first.
  const netRate = Math.min(load.netRate, network.limit);
  const disk = diskLimit(subject, observation, found, netRate, previous);
  return {
    zone: found.zone,
    ...(found.ratio === undefined ? {} : { ratio: found.ratio }),
    netLimit: network.limit,
    diskLimit: disk.limit,
    memory: network.memory,
    disk: disk.memory,
    stalledPeriods: found.stalledPeriods,
    askOn,
    reason: reasonOf({
      terms,
      observation,
      congestion,
      laxity: found,
      inDanger,
      network,
      zoneBefore: previous?.zone,
      limitBefore,
      disk,
      askOn,
      netRate,
    }),
  };
};
