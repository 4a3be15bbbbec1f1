/** The network of this host as the kernel shows it: proc_pid_net(5), sysfs, and the routing tables through ip-route(8). */
import { execFile } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { promisify } from 'node:util';
import { MigrateFsError } from '../../leaves/errors.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import { bytesPerSecond } from '../../leaves/units.js';
import type { InterfaceCounters, NetworkInterfaces } from './network-interfaces.js';

const INTERFACES_MAX = 16_384;
const LOWER_PREFIX = 'lower_';
/** Of /sys/class/net/X/speed: Mbit/s. */
const BYTES_PER_MEGABIT = 125_000;
const ROUTE_TIMEOUT_MS = 2000;
/** Columns of /proc/net/dev after the name. */
const [RECEIVED, SENT, COLUMNS] = [0, 8, 16];

/** Reads the text of /proc/net/dev; lines that are not understood are left out, and loopback is. */
export const parseCounters = (text: string): ReadonlyMap<string, InterfaceCounters> => {
  const counters = new Map<string, InterfaceCounters>();
  for (const line of text.split('\n', INTERFACES_MAX)) {
    // The numbers may follow the colon without a space; an alias has colons in its name.
    const match = /^\s*(\S+):\s*(\d[\d\s]*)$/.exec(line);
    const columns = match?.[2]?.trim().split(/\s+/).map(Number) ?? [];
    if (!match || columns.length < COLUMNS || match[1] === 'lo') continue;
    counters.set(match[1]!, { received: columns[RECEIVED]!, sent: columns[SENT]! });
  }
  return counters;
};

/** The interface in the answer of `ip -j route get`; undefined: the answer is another one. */
export const parseRoute = (text: string): string | undefined => {
  try {
    const [route] = JSON.parse(text) as readonly { readonly dev?: unknown }[];
    return typeof route?.dev === 'string' && route.dev !== '' ? route.dev : undefined;
  } catch {
    return undefined;
  }
};

const run = promisify(execFile);

const addressOf = async (host: string): Promise<string> => (isIP(host) ? host : (await lookup(host)).address);

const towards = async (host: string, signal: AbortSignal): Promise<string> => {
  const address = await addressOf(host);
  // A link-local address names its interface itself.
  const zone = address.split('%', 2)[1];
  if (zone) return zone;
  const { stdout } = await run('ip', ['-j', 'route', 'get', address], { signal, timeout: ROUTE_TIMEOUT_MS });
  const name = parseRoute(stdout);
  if (name === undefined) throw new MigrateFsError('NOT_FOUND', `no route to ${host}`);
  return name;
};

/** `sysNet` is another folder in tests. */
export const hostInterfaces = (
  procNetDev = '/proc/net/dev',
  sysNet = '/sys/class/net',
): NetworkInterfaces => {
  /** A veth pair, a bridge or a tap reports a speed that is made up. */
  const isReal = (name: string): boolean =>
    existsSync(`${sysNet}/${name}/device`) || existsSync(`${sysNet}/${name}/bonding`);
  const speed = (name: string): BytesPerSecond | undefined => {
    if (!isReal(name)) return undefined;
    try {
      const megabits = Number(readFileSync(`${sysNet}/${name}/speed`, 'utf8'));
      return megabits > 0 ? bytesPerSecond(megabits * BYTES_PER_MEGABIT) : undefined;
    } catch {
      // EINVAL without a carrier.
      return undefined;
    }
  };
  const below = (name: string): readonly string[] => {
    try {
      return readdirSync(`${sysNet}/${name}`)
        .filter((entry) => entry.startsWith(LOWER_PREFIX))
        .map((entry) => entry.slice(LOWER_PREFIX.length));
    } catch {
      return [];
    }
  };
  return { counters: () => parseCounters(readFileSync(procNetDev, 'utf8')), speed, below, towards };
};
