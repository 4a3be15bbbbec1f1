/** Links and their load as messages of proto/migratefs.proto. */
import type { LinkLoad } from '../leaves/hot-spots.js';
import { bytesPerSecond, millis } from '../leaves/units.js';
import type { LinkLoadMessage } from './wire.js';

const KB = 1000;

export const linkMessage = (load: LinkLoad): LinkLoadMessage => ({
  link: load.link,
  atUnixMs: Math.round(load.at),
  saturated: load.saturated,
  hot: load.hot,
  kbPerS: load.rate === undefined ? undefined : load.rate / KB,
  capacityKbPerS: load.capacity === undefined ? undefined : load.capacity / KB,
  source: load.source,
});

export const linkOf = (message: LinkLoadMessage): LinkLoad => ({
  link: message.link,
  at: millis(message.atUnixMs),
  saturated: message.saturated,
  hot: message.hot,
  ...(message.kbPerS !== undefined && { rate: message.kbPerS * KB }),
  ...(message.capacityKbPerS !== undefined && { capacity: bytesPerSecond(message.capacityKbPerS * KB) }),
  source: message.source,
});
