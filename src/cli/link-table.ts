/** The links that a daemon knows of, for people. */
import type { LinkLoad } from '../leaves/hot-spots.js';
import { formatRate } from '../leaves/quantity.js';
import { table } from './render.js';

const HEADINGS = ['LINK', 'STATE', 'RATE', 'CAPACITY', 'USED', 'KNOWN FROM'];

const stateOf = ({ hot, saturated }: LinkLoad): string => (hot ? 'hot' : saturated ? 'saturated' : 'cool');

export const linkTable = (links: readonly LinkLoad[]): string =>
  table([
    HEADINGS,
    ...[...links]
      .sort((a, b) => a.link.localeCompare(b.link))
      .map((load) => {
        const { link, rate, capacity, source } = load;
        return [
          link,
          stateOf(load),
          rate === undefined ? '-' : formatRate(rate),
          capacity === undefined ? '-' : formatRate(capacity),
          rate === undefined || capacity === undefined ? '-' : `${Math.round((100 * rate) / capacity)} %`,
          source,
        ];
      }),
  ]);
