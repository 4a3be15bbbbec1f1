/** The network as its operator describes it: hosts, switches, the links between them, and the routes that are fixed. */
import { MigrateFsError } from '../../leaves/errors.js';
import { parseHostPort } from '../../leaves/host-port.js';
import { parseCapacity } from '../../leaves/quantity.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import type { Paths, PlanLink } from './task.js';

export const HOSTS_MAX = 10_000;
export const SWITCHES_MAX = 10_000;
export const LINKS_MAX = 100_000;
export const ROUTES_MAX = 100_000;
const ROUTE_LENGTH_MAX = 64;
/** Paths that are kept; the oldest goes first. */
const KNOWN_PATHS_MAX = 20_000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;

export interface Host {
  readonly name: string;
  /** `host:port` of its daemon's control port. */
  readonly control: string;
  /** `host:port` of its daemon's data port. */
  readonly data: string;
}

interface Link {
  readonly name: string;
  readonly ends: readonly [string, string];
  readonly capacity: BytesPerSecond;
}

/** A link as one end sees it. */
interface Exit {
  readonly to: string;
  readonly via: PlanLink;
}

const invalid = (place: string, what: string): MigrateFsError =>
  new MigrateFsError('INVALID_ARGUMENT', `topology: ${place}: ${what}`);

const byName = (a: { readonly via: PlanLink }, b: { readonly via: PlanLink }): number =>
  a.via.name < b.via.name ? -1 : a.via.name > b.via.name ? 1 : 0;

/** A checked topology. Immutable but for the paths that it remembers. */
export class Topology implements Paths {
  readonly #hosts: ReadonlyMap<string, Host>;
  readonly #links: ReadonlyMap<string, Link>;
  readonly #exits = new Map<string, Exit[]>();
  readonly #routes: ReadonlyMap<string, ReadonlyMap<string, readonly PlanLink[]>>;
  readonly #known = new Map<string, readonly PlanLink[]>();

  /** Of `parseTopology` and `checkTopology`. */
  constructor(hosts: ReadonlyMap<string, Host>, links: ReadonlyMap<string, Link>, routes: readonly Route[]) {
    this.#hosts = hosts;
    this.#links = links;
    for (const { name, ends, capacity } of links.values()) {
      this.#exit(ends[0], { to: ends[1], via: { name, capacity } });
      this.#exit(ends[1], { to: ends[0], via: { name, capacity, backward: true } });
    }
    for (const exits of this.#exits.values()) exits.sort(byName);
    const fixed = new Map<string, Map<string, readonly PlanLink[]>>();
    for (const route of routes) {
      const targets = fixed.get(route.source) ?? new Map<string, readonly PlanLink[]>();
      targets.set(route.target, this.#along(route));
      fixed.set(route.source, targets);
    }
    this.#routes = fixed;
  }

  get hosts(): readonly Host[] {
    return [...this.#hosts.values()];
  }

  get links(): readonly PlanLink[] {
    return [...this.#links.values()].map(({ name, capacity }) => ({ name, capacity }));
  }

  /** NOT_FOUND for a name that is not a host's. */
  host(name: string): Host {
    const host = this.#hosts.get(name);
    if (!host) throw new MigrateFsError('NOT_FOUND', `the topology has no host '${name}'`);
    return host;
  }

  /**
   * The static route, else the path of the fewest links; of several, the one whose first link that differs has the
   * lower name. Hosts do not forward. FAILED_PRECONDITION where there is none.
   */
  path(source: string, target: string): readonly PlanLink[] {
    this.host(source);
    this.host(target);
    if (source === target)
      throw new MigrateFsError('INVALID_ARGUMENT', `source and target are the same host, '${source}'`);
    const fixed = this.#routes.get(source)?.get(target);
    if (fixed) return fixed;
    const key = `${source} ${target}`;
    const known = this.#known.get(key);
    if (known) return known;
    const found = this.#shortest(source, target);
    if (this.#known.size >= KNOWN_PATHS_MAX) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(key, found);
    return found;
  }

  /**
   * Breadth first. Exits are sorted, so each level is visited in the order of its paths and the first path that
   * arrives is the lowest one.
   */
  #shortest(source: string, target: string): readonly PlanLink[] {
    const last = new Set((this.#exits.get(target) ?? []).map(({ to }) => to));
    const reached = new Map<string, { from: string; via: PlanLink } | undefined>([[source, undefined]]);
    for (const node of reached.keys()) {
      if (last.has(node)) {
        const into = this.#exits.get(node)!.find(({ to }) => to === target)!;
        const links = [into.via];
        for (let step = reached.get(node); step; step = reached.get(step.from)) links.unshift(step.via);
        return links;
      }
      for (const { to, via } of this.#exits.get(node) ?? [])
        if (!reached.has(to) && !this.#hosts.has(to)) reached.set(to, { from: node, via });
    }
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `the topology has no route from '${source}' to '${target}'; add the links between them or a static route`,
    );
  }

  #exit(from: string, exit: Exit): void {
    const exits = this.#exits.get(from);
    if (exits) exits.push(exit);
    else this.#exits.set(from, [exit]);
  }

  #along({ source, target, links, place }: Route): readonly PlanLink[] {
    const path: PlanLink[] = [];
    const visited = new Set([source]);
    let node = source;
    for (const [index, name] of links.entries()) {
      const exit = this.#exits.get(node)?.find(({ via }) => via.name === name);
      if (!this.#links.has(name)) throw invalid(`${place}.links[${index}]`, `no link '${name}'`);
      if (!exit) throw invalid(`${place}.links[${index}]`, `link '${name}' does not start at '${node}'`);
      if (visited.has(exit.to)) throw invalid(`${place}.links[${index}]`, `comes back to '${exit.to}'`);
      if (this.#hosts.has(exit.to) && exit.to !== target)
        throw invalid(`${place}.links[${index}]`, `passes through host '${exit.to}'; hosts do not forward`);
      visited.add(exit.to);
      node = exit.to;
      path.push(exit.via);
    }
    if (node !== target) throw invalid(place, `ends at '${node}', not at '${target}'`);
    return path;
  }
}

interface Route {
  readonly source: string;
  readonly target: string;
  readonly links: readonly string[];
  /** Where the document says so. */
  readonly place: string;
}

type Fields = Readonly<Record<string, unknown>>;

/** An object with no fields but these: a misspelt one is an error, not a default. */
const fieldsOf = (value: unknown, place: string, allowed: readonly string[]): Fields => {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(place, `give an object with ${allowed.join(', ')}`);
  for (const key of Object.keys(value))
    if (!allowed.includes(key))
      throw invalid(place, `unknown field '${key.slice(0, 40)}'; there are ${allowed.join(', ')}`);
  return value as Fields;
};

const listOf = (value: unknown, place: string, max: number): readonly unknown[] => {
  if (!Array.isArray(value)) throw invalid(place, 'give a list');
  if (value.length > max) throw invalid(place, `${value.length} entries; at most ${max}`);
  return value;
};

const nameOf = (value: unknown, place: string): string => {
  if (typeof value !== 'string' || !NAME.test(value))
    throw invalid(place, 'give a name: 1 to 128 letters, digits, dots, hyphens, underscores or slashes');
  return value;
};

/** A value that a parser of the leaves checks, its complaint with the place. */
const parsed = <T>(value: unknown, place: string, parse: (text: string) => T): T => {
  if (typeof value !== 'string') throw invalid(place, 'give a text');
  try {
    return parse(value);
  } catch (error) {
    if (error instanceof MigrateFsError) throw invalid(place, error.message);
    throw error;
  }
};

const addressOf = (value: unknown, place: string): string =>
  parsed(value, place, (text) => {
    if (parseHostPort(text).port === 0) throw invalid(place, 'port 0 is no address to connect to');
    return text;
  });

/** Checks a topology that was read from JSON. INVALID_ARGUMENT names the place. */
export const checkTopology = (document: unknown): Topology => {
  const all = fieldsOf(document, 'document', ['hosts', 'switches', 'links', 'routes']);
  const nodes = new Map<string, string>();
  const node = (value: unknown, place: string): string => {
    const name = nameOf(value, place);
    if (nodes.has(name)) throw invalid(place, `'${name}' is already ${nodes.get(name)}`);
    nodes.set(name, place);
    return name;
  };
  const hosts = new Map<string, Host>();
  for (const [index, value] of listOf(all['hosts'], 'hosts', HOSTS_MAX).entries()) {
    const place = `hosts[${index}]`;
    const fields = fieldsOf(value, place, ['name', 'control', 'data']);
    const name = node(fields['name'], `${place}.name`);
    const control = addressOf(fields['control'], `${place}.control`);
    hosts.set(name, { name, control, data: addressOf(fields['data'], `${place}.data`) });
  }
  for (const [index, value] of listOf(all['switches'] ?? [], 'switches', SWITCHES_MAX).entries())
    node(value, `switches[${index}]`);
  const links = new Map<string, Link>();
  for (const [index, value] of listOf(all['links'], 'links', LINKS_MAX).entries()) {
    const place = `links[${index}]`;
    const fields = fieldsOf(value, place, ['name', 'between', 'capacity']);
    const name = nameOf(fields['name'], `${place}.name`);
    if (links.has(name)) throw invalid(`${place}.name`, `there is a link '${name}' already`);
    const between = listOf(fields['between'], `${place}.between`, 2);
    const ends = between.map((end, at) => {
      const known = nameOf(end, `${place}.between[${at}]`);
      if (!nodes.has(known)) throw invalid(`${place}.between[${at}]`, `no host or switch '${known}'`);
      return known;
    });
    if (ends.length !== 2 || ends[0] === ends[1])
      throw invalid(`${place}.between`, 'give two different ends');
    const capacity = parsed(fields['capacity'], `${place}.capacity`, parseCapacity);
    links.set(name, { name, ends: [ends[0]!, ends[1]!], capacity });
  }
  const routes = new Map<string, Route>();
  for (const [index, value] of listOf(all['routes'] ?? [], 'routes', ROUTES_MAX).entries()) {
    const place = `routes[${index}]`;
    const fields = fieldsOf(value, place, ['source', 'target', 'links']);
    const end = (key: 'source' | 'target'): string => {
      const name = nameOf(fields[key], `${place}.${key}`);
      if (!hosts.has(name)) throw invalid(`${place}.${key}`, `no host '${name}'`);
      return name;
    };
    const [source, target] = [end('source'), end('target')];
    if (source === target) throw invalid(place, 'source and target are the same host');
    const pair = `${source} ${target}`;
    if (routes.has(pair))
      throw invalid(
        place,
        `there is a route from '${source}' to '${target}' already, ${routes.get(pair)!.place}`,
      );
    const names = listOf(fields['links'], `${place}.links`, ROUTE_LENGTH_MAX).map((link, at) =>
      nameOf(link, `${place}.links[${at}]`),
    );
    routes.set(pair, { source, target, links: names, place });
  }
  return new Topology(hosts, links, [...routes.values()]);
};

/** Reads the text of a topology file. INVALID_ARGUMENT names the place. */
export const parseTopology = (text: string): Topology => {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new MigrateFsError('INVALID_ARGUMENT', `topology: not JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return checkTopology(document);
};
