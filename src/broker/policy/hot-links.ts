/** Links that somebody else than migrations fills. */
import type { LinkLoad } from '../../leaves/hot-spots.js';
import { formatRate } from '../../leaves/quantity.js';
import { type Demand, linkKey } from './demand.js';

/** The part of a link that others have to use for it to be theirs. */
const OTHERS_SHARE = 0.1;

export type HotLinks = ReadonlyMap<string, LinkLoad>;

/** By name. What running tasks move themselves does not make a link hot, wherever the rates are known. */
export const hotLinks = (loads: readonly LinkLoad[], demands: readonly Demand[]): HotLinks => {
  const ours = new Map<string, number>();
  for (const { task, path } of demands)
    if (task.state === 'running')
      for (const link of path) ours.set(linkKey(link), (ours.get(linkKey(link)) ?? 0) + (task.netRate ?? 0));
  // A load is that of the busier direction.
  const oursOf = (name: string): number =>
    Math.max(...[false, true].map((backward) => ours.get(linkKey({ name, backward })) ?? 0));
  const hot = new Map<string, LinkLoad>();
  for (const load of loads) {
    if ((!load.hot && !load.saturated) || hot.has(load.link)) continue;
    const isTheirs =
      load.rate === undefined
        ? load.hot
        : load.rate - oursOf(load.link) > OTHERS_SHARE * (load.capacity ?? load.rate);
    if (isTheirs) hot.set(load.link, load);
  }
  return hot;
};

/** `tor3 is hot (4.9 GB/s of 5.0 GB/s, prometheus query tor)` */
export const heatWords = ({ link, rate, capacity, source }: LinkLoad): string => {
  const carries =
    rate === undefined
      ? ''
      : `${formatRate(rate)}${capacity === undefined ? '' : ` of ${formatRate(capacity)}`}, `;
  return `${link} is hot (${carries}${source})`;
};
