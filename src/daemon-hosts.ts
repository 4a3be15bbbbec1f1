/** The daemons of a topology, as the scheduler sees them, over the control API. */
import Bottleneck from 'bottleneck';
import type { HostControl, MigrationOrder } from './broker/scheduler/host-control.js';
import { ControlClient } from './control/control-client.js';
import type { BrokerSnapshot, PathLink } from './leaves/broker.js';
import { MigrateFsError } from './leaves/errors.js';
import { parseHostPort } from './leaves/host-port.js';
import type { ImageDescription, MigrationSnapshot } from './leaves/migration.js';
import type { TlsIdentity } from './leaves/tls-identity.js';
import { UNLIMITED } from './leaves/units.js';

/** Calls under way at one daemon; the others wait for their turn. */
const CALLS_PER_HOST = 16;

interface Addresses {
  readonly control: string;
  readonly data: string;
}

interface DaemonHostsOptions {
  /** Addresses by name; throws for a host that is not in the topology. */
  readonly addressesOf: (host: string) => Addresses;
  readonly tls?: TlsIdentity | undefined;
}

/** Settles like `promise`, or rejects with the reason of `signal` at once; the call goes on by itself. */
const abortable = <T>(promise: Promise<T>, signal: AbortSignal): Promise<T> =>
  new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });

export class DaemonHosts implements HostControl, Disposable {
  readonly #options: DaemonHostsOptions;
  readonly #clients = new Map<string, ControlClient>();
  readonly #calls = new Bottleneck.Group({ maxConcurrent: CALLS_PER_HOST });

  constructor(options: DaemonHostsOptions) {
    this.#options = options;
  }

  controlAddress(host: string): string {
    return this.#options.addressesOf(host).control;
  }

  describe(
    host: string,
    images: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly ImageDescription[]> {
    return this.#call(host, signal, (client) => client.describeImages(images));
  }

  start(host: string, order: MigrationOrder, signal: AbortSignal): Promise<MigrationSnapshot> {
    const { target, danger, warning, important, vmmTime, ...rest } = order;
    this.#options.addressesOf(host);
    const { data } = this.#options.addressesOf(target);
    return this.#call(host, signal, (client) =>
      client.start({
        ...rest,
        target: data,
        netLimit: UNLIMITED,
        diskLimit: UNLIMITED,
        broker: { danger, warning, important, vmmTime },
      }),
    );
  }

  list(host: string, signal: AbortSignal): Promise<readonly MigrationSnapshot[]> {
    return this.#call(host, signal, (client) => client.list());
  }

  async *watch(host: string, migrationId: string, signal: AbortSignal): AsyncIterable<MigrationSnapshot> {
    yield* this.#clientOf(host).watch(migrationId, signal);
  }

  cancel(host: string, migrationId: string, signal: AbortSignal): Promise<MigrationSnapshot> {
    return this.#call(host, signal, (client) => client.cancel(migrationId));
  }

  cutover(host: string, migrationId: string, signal: AbortSignal): Promise<MigrationSnapshot> {
    return this.#call(host, signal, (client) => client.cutover(migrationId));
  }

  async setPath(
    host: string,
    migrationId: string,
    path: readonly PathLink[],
    signal: AbortSignal,
  ): Promise<void> {
    await this.#call(host, signal, (client) => client.setBrokerPath(migrationId, path));
  }

  broker(host: string, migrationId: string, signal: AbortSignal): Promise<BrokerSnapshot> {
    return this.#call(host, signal, (client) => client.broker(migrationId));
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #call<T>(host: string, signal: AbortSignal, call: (client: ControlClient) => Promise<T>): Promise<T> {
    const turn = this.#calls.key(host).schedule(async () => {
      signal.throwIfAborted();
      return await call(this.#clientOf(host));
    });
    return abortable(turn, signal);
  }

  #clientOf(host: string): ControlClient {
    const known = this.#clients.get(host);
    if (known) return known;
    const client = new ControlClient({
      server: parseHostPort(this.#known(host).control),
      tls: this.#options.tls,
    });
    this.#clients.set(host, client);
    return client;
  }

  /** UNAVAILABLE: it is not in the topology any more. NOT_FOUND would mean that its daemon does not know a migration. */
  #known(host: string): Addresses {
    try {
      return this.#options.addressesOf(host);
    } catch (cause) {
      if (!(cause instanceof MigrateFsError)) throw cause;
      throw new MigrateFsError(
        'UNAVAILABLE',
        `${cause.message}: put it back to look after what is under way`,
        {
          cause,
        },
      );
    }
  }
}
