/** Where hot spots come from, as an operator writes it (docs/HOTSPOTS.md). */
import { resolve } from 'node:path';
import { ConfigFields, configError } from '../../leaves/config-fields.js';
import type { HostPort } from '../../leaves/host-port.js';
import { parseHostPort } from '../../leaves/host-port.js';
import type { BytesPerSecond, Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import type { LinkThresholds } from './link-state.js';

/** What one interface of this host is called in the topology, and what it can do; absent: the kernel is asked. */
export interface InterfaceConfig {
  readonly link: string;
  readonly capacity?: BytesPerSecond;
}

export interface InterfacesConfig {
  /** Between two looks at the counters. */
  readonly interval: Millis;
  /** Rates are taken over this long. */
  readonly window: Millis;
  /** Whether interfaces that are not in `links` are watched too, where the kernel knows their speed. */
  readonly automatic: boolean;
  readonly links: ReadonlyMap<string, InterfaceConfig>;
}

export interface QueryConfig {
  /** For people. */
  readonly name: string;
  /** PromQL with an instant vector as its result. */
  readonly query: string;
  /** The label of the result that names the link. */
  readonly label: string;
  /** Links by the value of that label, where they are not the same. */
  readonly names: ReadonlyMap<string, string>;
  /** `utilisation`: 1 is all of the link. `rate`: bytes per second, of the capacity. */
  readonly value: 'utilisation' | 'rate';
  readonly capacity?: BytesPerSecond;
  /** Capacities of single links. */
  readonly capacities: ReadonlyMap<string, BytesPerSecond>;
}

export interface PrometheusConfig {
  readonly server: URL;
  /** File with a bearer token. */
  readonly tokenFile?: string;
  /** File with the authorities that the server's certificate is checked against; absent: those of the system. */
  readonly caFile?: string;
  readonly interval: Millis;
  readonly timeout: Millis;
  /** What was answered counts for this long. */
  readonly staleAfter: Millis;
  readonly queries: readonly QueryConfig[];
}

export interface AlertsConfig {
  readonly listen: HostPort;
  /** The label of an alert that names the link. */
  readonly label: string;
  readonly names: ReadonlyMap<string, string>;
  /** File with the bearer token that is asked for. */
  readonly tokenFile?: string;
  /** A firing alert that is not sent again counts for this long. */
  readonly expiresAfter: Millis;
}

export interface HotSpotsConfig {
  readonly thresholds: LinkThresholds;
  /** Absent: no interface of this host is watched. */
  readonly interfaces?: InterfacesConfig;
  readonly prometheus: readonly PrometheusConfig[];
  readonly alerts?: AlertsConfig;
}

const LINK_NAME_LENGTH_MAX = 128;
const SERVERS_MAX = 16;
const QUERIES_MAX = 64;
const [SECOND, HOUR] = [1000, 3_600_000];

/**
 * A saturated Ethernet link with full frames shows 98 % of its speed in the counters, less with small ones. Below 80 %
 * a migration that comes back with a tenth of the link does not saturate it at once.
 */
const UPPER = 0.9;
const LOWER = 0.8;
/** Long enough for the part of a migration that has just begun to be known. */
const RISE = millis(1000);
const FALL = millis(2000);
const OTHERS = 0.1;

export const isLinkName = (name: string): boolean =>
  name !== '' && name.length <= LINK_NAME_LENGTH_MAX && !/[\p{C}\s]/u.test(name);

const linkName = (fields: ConfigFields, key: string): string => {
  const name = fields.text(key);
  if (!isLinkName(name))
    throw configError(
      `${fields.where}.${key}`,
      `not the name of a link: at most ${LINK_NAME_LENGTH_MAX} characters, no spaces`,
    );
  return name;
};

const thresholdsOf = (fields: ConfigFields): LinkThresholds => {
  const upper = fields.number('upper', 0.01, 10, UPPER);
  const lower = fields.number('lower', 0.001, 10, Math.min(LOWER, upper));
  if (lower > upper) throw configError(fields.where, `lower (${lower}) is above upper (${upper})`);
  const thresholds = {
    upper,
    lower,
    rise: fields.duration('rise', millis(0), millis(HOUR), RISE),
    fall: fields.duration('fall', millis(0), millis(HOUR), FALL),
    others: fields.number('others', 0, 1, OTHERS),
  };
  fields.end();
  return thresholds;
};

const interfacesOf = (fields: ConfigFields): InterfacesConfig => {
  const links = new Map<string, InterfaceConfig>();
  const named = fields.object('links');
  for (const name of named.keys()) {
    const one = named.object(name);
    const capacity = one.capacity('capacity');
    links.set(name, {
      link: one.has('link') ? linkName(one, 'link') : name,
      ...(capacity === undefined ? {} : { capacity }),
    });
    one.end();
  }
  const interval = fields.duration('interval', millis(100), millis(60 * SECOND), millis(500));
  const window = fields.duration('window', interval, millis(HOUR), millis(2 * interval));
  const automatic = fields.flag('automatic', true);
  fields.end();
  return { interval, window, automatic, links };
};

const namesOf = (fields: ConfigFields): ReadonlyMap<string, string> => {
  const names = fields.object('names');
  return new Map(names.keys().map((value) => [value, linkName(names, value)]));
};

const queryOf = (fields: ConfigFields): QueryConfig => {
  const value = fields.optionalText('value') ?? 'utilisation';
  if (value !== 'utilisation' && value !== 'rate')
    throw configError(`${fields.where}.value`, "give 'utilisation' or 'rate'");
  const query = fields.text('query');
  const each = fields.object('capacities');
  const capacities = new Map(each.keys().map((link) => [link, each.capacity(link)!]));
  const capacity = fields.capacity('capacity');
  if ((value === 'rate') !== (capacity !== undefined || capacities.size > 0))
    throw configError(
      fields.where,
      "'value': 'rate' needs 'capacity' or 'capacities', and a utilisation has none",
    );
  const config = {
    name: fields.optionalText('name') ?? query,
    query,
    label: fields.optionalText('label') ?? 'link',
    names: namesOf(fields),
    value,
    capacities,
    ...(capacity === undefined ? {} : { capacity }),
  } as const;
  fields.end();
  return config;
};

const serverOf = (fields: ConfigFields): URL => {
  const text = fields.text('server');
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.search !== '')
    throw configError(
      `${fields.where}.server`,
      'give the address of a Prometheus server, such as http://127.0.0.1:9090',
    );
  return url;
};

const optionalFile = <Key extends string>(
  fields: ConfigFields,
  key: string,
  name: Key,
): { readonly [K in Key]?: string } => {
  const path = fields.optionalText(key);
  return path === undefined ? {} : ({ [name]: path } as { readonly [K in Key]: string });
};

const prometheusOf = (fields: ConfigFields): PrometheusConfig => {
  const interval = fields.duration('interval', millis(100), millis(HOUR), millis(5 * SECOND));
  const timeout = fields.duration('timeout', millis(10), millis(60 * SECOND), millis(5 * SECOND));
  const queries = fields.objects('queries').map(queryOf);
  if (queries.length === 0 || queries.length > QUERIES_MAX)
    throw configError(`${fields.where}.queries`, `give 1 to ${QUERIES_MAX} queries`);
  const config: PrometheusConfig = {
    server: serverOf(fields),
    ...optionalFile(fields, 'token-file', 'tokenFile'),
    ...optionalFile(fields, 'ca-file', 'caFile'),
    interval,
    timeout,
    staleAfter: fields.duration('stale-after', interval, millis(24 * HOUR), millis(3 * interval + timeout)),
    queries,
  };
  fields.end();
  return config;
};

const alertsOf = (fields: ConfigFields): AlertsConfig => {
  const listen = fields.text('listen');
  let address: HostPort;
  try {
    address = parseHostPort(listen);
  } catch (error) {
    throw configError(`${fields.where}.listen`, (error as Error).message);
  }
  const config = {
    listen: address,
    label: fields.optionalText('label') ?? 'link',
    names: namesOf(fields),
    ...optionalFile(fields, 'token-file', 'tokenFile'),
    expiresAfter: fields.duration('expires-after', millis(SECOND), millis(24 * HOUR), millis(300 * SECOND)),
  };
  fields.end();
  return config;
};

/** With the files that it names found in `folder`, where their paths are relative. */
export const withFilesIn = (folder: string, config: HotSpotsConfig): HotSpotsConfig => {
  const { prometheus, alerts } = config;
  const found = <Key extends string>(
    name: Key,
    path: string | undefined,
  ): { readonly [K in Key]?: string } =>
    path === undefined ? {} : ({ [name]: resolve(folder, path) } as { readonly [K in Key]: string });
  return {
    ...config,
    prometheus: prometheus.map((server) => ({
      ...server,
      ...found('tokenFile', server.tokenFile),
      ...found('caFile', server.caFile),
    })),
    ...(alerts && { alerts: { ...alerts, ...found('tokenFile', alerts.tokenFile) } }),
  };
};

/**
 * Reads the value of a JSON configuration. INVALID_ARGUMENT names the place and what is accepted.
 * Without a key `interfaces` those with a known speed are watched if `watchInterfaces`, else none; `false` is none.
 */
export const hotSpotsConfigOf = (value: unknown, watchInterfaces: boolean): HotSpotsConfig => {
  const fields = new ConfigFields('hot-spots', value);
  const prometheus = fields.objects('prometheus').map(prometheusOf);
  if (prometheus.length > SERVERS_MAX)
    throw configError(`${fields.where}.prometheus`, `give at most ${SERVERS_MAX} servers`);
  const none = fields.raw('interfaces') === false || (!watchInterfaces && !fields.has('interfaces'));
  const config = {
    thresholds: thresholdsOf(fields.object('thresholds')),
    ...(none ? {} : { interfaces: interfacesOf(fields.object('interfaces')) }),
    prometheus,
    ...(fields.has('alerts') ? { alerts: alertsOf(fields.object('alerts')) } : {}),
  };
  fields.end();
  return config;
};
