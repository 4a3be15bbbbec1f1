/**
 * Hosts on one machine, joined as in a rack: each a network namespace with one interface, `eth0`, to a switch; both
 * directions of that cable carry `rate` at most (tc-tbf(8)). A second, unshaped network leads from the test to every
 * host, under the same addresses, so that watching disturbs nothing.
 */
import { NetworkNamespace } from './network-namespace.js';
import { type Host, startHost } from './pair.js';
import { runOk } from './run.js';
import type { Teardown } from './scratch.js';
import type { TestDaemonOptions } from './test-daemon.js';

const CONTROL_PORT = 7070;
const DATA_PORT = 7071;

/** One segment of a connection leaves in one piece: 64 KiB with its headers. */
const BURST_BYTES = 68_000;
/** A full queue is this long: as that of a switch. */
const QUEUE_MS = 50;
/** Of the network that leads to the test. */
const SIDE_NETWORK = '10.78.0';

export interface CableOptions {
  /** Bytes per second of each direction, frame headers included; absent: as fast as it goes. */
  readonly rate?: number;
  /**
   * What the host sends is shared evenly among its connections, as hosts do by default (fq_codel); without it they share
   * one queue, where one may have half as much again as another for a while.
   */
  readonly fair?: boolean;
}

/** One host of the bed. */
export class BedHost {
  readonly name: string;
  readonly address: string;
  readonly namespace: NetworkNamespace;

  constructor(name: string, address: string, namespace: NetworkNamespace) {
    this.name = name;
    this.address = address;
    this.namespace = namespace;
  }

  /** Address of its daemon's control port. */
  get server(): string {
    return `${this.address}:${CONTROL_PORT}`;
  }

  /** Address of its data port. */
  get data(): string {
    return `${this.address}:${DATA_PORT}`;
  }

  /** Bytes that it has put on its cable so far, frame headers included. */
  get bytesSent(): number {
    return this.namespace.counters('eth0').bytesSent;
  }

  get bytesReceived(): number {
    return this.namespace.counters('eth0').bytesReceived;
  }

  /** Starts its daemon, as `startHost` does. */
  startDaemon(t: Teardown, options: TestDaemonOptions = {}): Promise<Host> {
    return startHost(t, {
      ...options,
      prefix: this.namespace.prefix,
      listen: this.server,
      data: this.data,
      extraArgs: ['--insecure', ...(options.extraArgs ?? [])],
    });
  }
}

/**
 * Bytes. tc-htb(8) takes what a connection sends in one piece, up to 64 KiB, for one packet, where fq_codel splits it:
 * with so large pieces one that sends less than its share now and then is pushed below it.
 */
const PIECE_BYTES_MAX = 16_000;

/** Queues of a fair interface: three connections share none in 49 of 50 cases. */
const QUEUES = 128;

/**
 * One class of tc-htb(8) for each value of seven bits of the sender's port (the lowest is the same for most), all of them
 * borrowing from one: as much each. A little below the rate, so that the queues are here.
 */
const fairlyShared = (device: string, rate: number): string => {
  const total = Math.round(rate * 0.98);
  const queue = (number: number, id: string): string => `
    class add dev ${device} parent 1:1 classid 1:${id} htb rate ${Math.floor(total / QUEUES / 2)}bps ceil ${total}bps quantum 3028 burst 20000 cburst 20000
    qdisc add dev ${device} parent 1:${id} bfifo limit 200000
    filter add dev ${device} parent 1: protocol ip prio 1 u32 match ip protocol 6 0xff match u16 ${number * 2} 0x00fe at 20 flowid 1:${id}`;
  const queues = Array.from({ length: QUEUES }, (_, i) => queue(i, (i + 16).toString(16)));
  return `
    ip link set dev ${device} gso_max_size ${PIECE_BYTES_MAX}
    tc -batch - <<'END'
    qdisc add dev ${device} root handle 1: htb default 10
    class add dev ${device} parent 1: classid 1:1 htb rate ${total}bps burst ${BURST_BYTES} cburst ${BURST_BYTES}
    ${queues.join('')}
END
`;
};

const shaped = (device: string, { rate }: CableOptions): string =>
  rate === undefined
    ? ''
    : `tc qdisc add dev ${device} root tbf rate ${Math.round(rate)}bps burst ${BURST_BYTES} latency ${QUEUE_MS}ms`;

export class TestBed {
  readonly #hosts: ReadonlyMap<string, BedHost>;

  private constructor(hosts: ReadonlyMap<string, BedHost>) {
    this.#hosts = hosts;
  }

  /** Builds the bed and moves this thread into it until the test's end. */
  static async create(t: Teardown, cables: Readonly<Record<string, CableOptions>>): Promise<TestBed> {
    const middle = await NetworkNamespace.create(t);
    await middle.script(`
      ip link set lo up
      ip link add switch type bridge
      ip link set switch up
      ip link add side type bridge
      ip link set side up
      ip address add ${SIDE_NETWORK}.254/24 dev side
    `);
    const hosts = new Map<string, BedHost>();
    for (const [index, [name, cable]] of Object.entries(cables).entries())
      hosts.set(name, await TestBed.#attach(t, middle, name, index + 1, cable));
    middle.enter(t);
    return new TestBed(hosts);
  }

  static async #attach(
    t: Teardown,
    middle: NetworkNamespace,
    name: string,
    number: number,
    cable: CableOptions,
  ): Promise<BedHost> {
    const namespace = await NetworkNamespace.create(t);
    const host = new BedHost(name, `10.77.0.${number}`, namespace);
    for (const [inside, outside] of [
      ['eth0', `port${number}`],
      ['side0', `side${number}`],
    ])
      await runOk('ip', [
        ...['link', 'add', inside!, 'netns', String(namespace.pid), 'type', 'veth'],
        ...['peer', 'name', outside!, 'netns', String(middle.pid)],
      ]);
    // A few connections in one drop-tail queue lock each other out with the others (Floyd and Jacobson 1991, "Traffic
    // phase effects"): a switch with thousands does not show that.
    await namespace.script(`
      ip link set lo up
      for control in ${cable.fair ? 'cubic reno' : 'bbr cubic reno'}; do
        ! { echo $control >/proc/sys/net/ipv4/tcp_congestion_control; } 2>/dev/null || break
      done
      ip address add ${host.address}/24 dev eth0
      ip address add ${SIDE_NETWORK}.${number}/24 dev side0
      ip link set eth0 up
      ip link set side0 up
      ${cable.fair && cable.rate !== undefined ? fairlyShared('eth0', cable.rate) : shaped('eth0', cable)}
    `);
    await middle.script(`
      ip link set port${number} master switch up
      ip link set side${number} master side up
      ip route add ${host.address} via ${SIDE_NETWORK}.${number}
      ${shaped(`port${number}`, cable)}
    `);
    return host;
  }

  host(name: string): BedHost {
    const host = this.#hosts.get(name);
    if (!host) throw new Error(`the bed has no host ${name}`);
    return host;
  }
}
