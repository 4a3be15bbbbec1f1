import type { BackOffAnswer, BackOffRequest, BrokerSnapshot, PathLink } from '../leaves/broker.js';
import type { DaemonStatus, ImageDescription, MigrationSnapshot } from '../leaves/migration.js';
import type { BytesPerSecond, Millis } from '../leaves/units.js';
import { millis } from '../leaves/units.js';
import type { Holder, UnmountRequest } from '../leaves/unmount.js';
import { backOffAnswerOf, backOffRequestMessage, brokerSnapshotOf, pathMessage } from './broker-message.js';
import type { BrokerMethod, BrokerMethods } from './broker-wire.js';
import type { ChannelOptions } from './grpc-channel.js';
import { GrpcChannel } from './grpc-channel.js';
import { imageDescriptionOf } from './image-message.js';
import type { ReceivedVerifyReport } from './migration-message.js';
import { snapshotOf, statusOf, verifyReportOf, wholeKbPerS } from './migration-message.js';
import { allPages } from './page.js';
import { methodDefinition } from './service-definition.js';
import type { StartOptions } from './start-request.js';
import { startRequestMessage } from './start-request.js';
import { DAEMON } from './status-error.js';
import type { MigrationMessage, QueryProgressResponse, UnaryMethod, UnaryMethods } from './wire.js';

/** How long a call may take that only asks or sets something. */
const CALL_TIMEOUT = millis(15_000);
/** The daemon may ask its peer first. */
const START_TIMEOUT = millis(60_000);
/** Draining what is in flight through a throttled network. */
const CUTOVER_TIMEOUT = millis(300_000);
/** Looking through every process of the host. */
const UNMOUNT_TIMEOUT = millis(60_000);
/** Reading every image on both sides. */
const VERIFY_TIMEOUT = millis(24 * 3_600_000);

type Methods = UnaryMethods & BrokerMethods;
type Method = UnaryMethod | BrokerMethod;

/** Nothing is sent before the first call. INVALID_ARGUMENT: bad PEMs. */
export const connect = (options: ChannelOptions): ControlClient => new ControlClient(options);

/** A client of the network API in the program's own vocabulary; every failure is a `MigrateFsError`. */
export class ControlClient implements Disposable {
  readonly #channel: GrpcChannel;

  constructor(options: ChannelOptions) {
    this.#channel = new GrpcChannel(options, DAEMON);
  }

  /** `host:port` of the daemon. */
  get server(): string {
    return this.#channel.server;
  }

  async start(options: StartOptions): Promise<MigrationSnapshot> {
    return snapshotOf(await this.#unary('StartMigration', startRequestMessage(options), START_TIMEOUT));
  }

  async get(migrationId: string): Promise<MigrationSnapshot> {
    return snapshotOf(await this.#unary('GetMigration', { migrationId }));
  }

  async list(): Promise<readonly MigrationSnapshot[]> {
    return allPages(async (pageToken) => {
      const { migrations, nextPageToken } = await this.#unary('ListMigrations', { pageToken });
      return { items: migrations.map(snapshotOf), nextPageToken };
    });
  }

  async setNetworkLimit(migrationId: string, limit: BytesPerSecond): Promise<MigrationSnapshot> {
    const limitKbPerS = wholeKbPerS(limit);
    return snapshotOf(await this.#unary('SetNetworkLimit', { migrationId, limitKbPerS }));
  }

  async setDiskLimit(migrationId: string, limit: BytesPerSecond): Promise<MigrationSnapshot> {
    const limitKbPerS = wholeKbPerS(limit);
    return snapshotOf(await this.#unary('SetDiskLimit', { migrationId, limitKbPerS }));
  }

  /** Rates in KB/s, as the API counts; only what was asked for. */
  async queryProgress(migrationId: string, rate?: 'network' | 'disk'): Promise<QueryProgressResponse> {
    const { networkKbPerS, diskKbPerS } = await this.#unary('QueryProgress', {
      migrationId,
      rate: rate === undefined ? 'RATE_UNSPECIFIED' : rate === 'disk' ? 'RATE_DISK' : 'RATE_NETWORK',
    });
    return {
      ...(networkKbPerS !== undefined && { networkKbPerS }),
      ...(diskKbPerS !== undefined && { diskKbPerS }),
    };
  }

  async queryCompletion(migrationId: string): Promise<boolean> {
    return (await this.#unary('QueryCompletion', { migrationId })).completed;
  }

  async pause(migrationId: string): Promise<MigrationSnapshot> {
    return snapshotOf(await this.#unary('Pause', { migrationId }));
  }

  async resume(migrationId: string): Promise<MigrationSnapshot> {
    return snapshotOf(await this.#unary('Resume', { migrationId }));
  }

  /** `takeBack`: see `CancelRequest`. */
  async cancel(migrationId: string, takeBack = false): Promise<MigrationSnapshot> {
    return snapshotOf(await this.#unary('Cancel', { migrationId, takeBack }));
  }

  async cutover(migrationId: string): Promise<MigrationSnapshot> {
    return snapshotOf(await this.#unary('Cutover', { migrationId }, CUTOVER_TIMEOUT));
  }

  /** What the daemon's host knows of images, one answer for each name. */
  async describeImages(names: readonly string[]): Promise<readonly ImageDescription[]> {
    return (await this.#unary('DescribeImages', { names })).images.map(imageDescriptionOf);
  }

  /** `what` is a migration id or an image name. */
  async verify(what: string): Promise<readonly ReceivedVerifyReport[]> {
    return (await this.#unary('Verify', { what }, VERIFY_TIMEOUT)).reports.map(verifyReportOf);
  }

  /** Resolves to who has files open still; see `Unmount`. */
  async unmount(request: UnmountRequest): Promise<readonly Holder[]> {
    return (await this.#unary('Unmount', request, UNMOUNT_TIMEOUT)).holders;
  }

  /** NOT_FOUND: it has none, or is not a source there. */
  async broker(migrationId: string): Promise<BrokerSnapshot> {
    return brokerSnapshotOf(await this.#unary('GetBroker', { migrationId }));
  }

  async brokers(): Promise<readonly BrokerSnapshot[]> {
    return allPages(async (pageToken) => {
      const { brokers, nextPageToken } = await this.#unary('ListBrokers', { pageToken });
      return { items: brokers.map(brokerSnapshotOf), nextPageToken };
    });
  }

  async setBrokerPath(migrationId: string, path: readonly PathLink[]): Promise<BrokerSnapshot> {
    return brokerSnapshotOf(await this.#unary('SetBrokerPath', { migrationId, path: pathMessage(path) }));
  }

  /** Rejects as soon as `signal` aborts. */
  async backOff(request: BackOffRequest, signal?: AbortSignal): Promise<BackOffAnswer> {
    const { answer } = await this.#unary('BackOff', backOffRequestMessage(request), CALL_TIMEOUT, signal);
    return backOffAnswerOf(answer);
  }

  async status(): Promise<DaemonStatus> {
    return statusOf(await this.#unary('GetStatus', {}));
  }

  /**
   * The current snapshot, then every change; ends after a final state when an id is given. `''` watches all
   * migrations, without end. Aborting `signal` ends it quietly.
   */
  async *watch(migrationId: string, signal?: AbortSignal): AsyncGenerator<MigrationSnapshot, void, void> {
    const method = methodDefinition('WatchMigration');
    for await (const message of this.#channel.stream(method, { migrationId }, signal))
      yield snapshotOf(message as MigrationMessage);
  }

  close(): void {
    this.#channel[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #unary<M extends Method>(
    method: M,
    request: Methods[M][0],
    timeout: Millis = CALL_TIMEOUT,
    signal?: AbortSignal,
  ): Promise<Methods[M][1]> {
    return (await this.#channel.call(methodDefinition(method), request, timeout, signal)) as Methods[M][1];
  }
}
