import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import type { BrokerControl } from '../leaves/broker.js';
import type { Clock } from '../leaves/clock.js';
import { systemClock } from '../leaves/clock.js';
import { MigrateFsError } from '../leaves/errors.js';
import type { LogSink } from '../leaves/log-sink.js';
import type { DaemonStatus, LimitSetter, MigrationControl, MigrationSnapshot } from '../leaves/migration.js';
import { isFinal } from '../leaves/migration.js';
import type { Role } from '../leaves/role.js';
import type { Unmount } from '../leaves/unmount.js';
import { brokerImplementation } from './broker-service.js';
import type { ControlServer, ListenerOptions } from './grpc-server.js';
import { serveGrpc, unaryHandler } from './grpc-server.js';
import { imageDescriptionMessage } from './image-message.js';
import { migrationMessage, stateName, statusMessage, verifyReportMessage } from './migration-message.js';
import { pageOf } from './page.js';
import {
  BROKERS_NAME,
  brokersDefinition,
  PROTO_PATH,
  SERVICE_NAME,
  serviceDefinition,
} from './service-definition.js';
import { checkedImageNames, checkedLimit, migrationRequestOf } from './start-request.js';
import { WatchStreams } from './watch-stream.js';
import type { MigrationIdMessage, UnaryMethod, UnaryMethods } from './wire.js';

/** Characters; ids are made by daemons and are short. */
const ID_LENGTH_MAX = 128;
const WHAT_LENGTH_MAX = 4096;
const KB = 1000;
/** Of a time in milliseconds. */
const START_DIGITS = 16;

interface ControlServerOptions extends ListenerOptions {
  readonly service: MigrationControl;
  /** Absent: the service Brokers is not there. */
  readonly brokers?: BrokerControl | undefined;
  readonly status: () => DaemonStatus;
  /** Absent: UNIMPLEMENTED. */
  readonly unmount?: Unmount;
}

type Handlers = {
  readonly [M in UnaryMethod]: (
    request: UnaryMethods[M][0],
    role: Role,
  ) => Promise<UnaryMethods[M][1]> | UnaryMethods[M][1];
};

const idOf = ({ migrationId }: MigrationIdMessage): string => {
  if (migrationId === '' || migrationId.length > ID_LENGTH_MAX)
    throw new MigrateFsError('INVALID_ARGUMENT', 'migration_id is empty or too long');
  return migrationId;
};

const whatOf = (what: string): string => {
  if (what === '' || what.length > WHAT_LENGTH_MAX)
    throw new MigrateFsError(
      'INVALID_ARGUMENT',
      'what is empty or too long: give a migration id or an image name',
    );
  return what;
};

/** Whose limit a caller sets. */
const setterOf = (role: Role): LimitSetter => (role === 'broker' ? 'broker' : 'operator');

/** Orders migrations by their start. */
const byStart = ({ startedAt, id }: MigrationSnapshot): string =>
  `${String(Math.round(startedAt)).padStart(START_DIGITS, '0')} ${id}`;

const noUnmount: Unmount = () => {
  throw new MigrateFsError('UNIMPLEMENTED', 'this server has no mount');
};

const handlersOf = (
  { service, status, unmount = noUnmount }: ControlServerOptions,
  clock: Clock,
): Handlers => ({
  StartMigration: async (request) =>
    migrationMessage(await service.start(migrationRequestOf(request, clock.wall()))),
  SetNetworkLimit: async (request, role) =>
    migrationMessage(
      await service.setLimits(
        idOf(request),
        { netLimit: checkedLimit('network', request.limitKbPerS) },
        setterOf(role),
      ),
    ),
  SetDiskLimit: async (request, role) =>
    migrationMessage(
      await service.setLimits(
        idOf(request),
        { diskLimit: checkedLimit('disk', request.limitKbPerS) },
        setterOf(role),
      ),
    ),
  QueryProgress: async (request) => {
    const { netRate, writeRate } = await service.get(idOf(request));
    return {
      ...(request.rate !== 'RATE_DISK' && { networkKbPerS: netRate / KB }),
      ...(request.rate !== 'RATE_NETWORK' && { diskKbPerS: writeRate / KB }),
    };
  },
  QueryCompletion: async (request) => {
    const { state } = await service.get(idOf(request));
    return { completed: state === 'completed', state: stateName(state) };
  },
  GetMigration: async (request) => migrationMessage(await service.get(idOf(request))),
  ListMigrations: async ({ pageToken }) => {
    const { messages, nextPageToken } = pageOf(await service.list(), byStart, migrationMessage, pageToken);
    return { migrations: messages, nextPageToken };
  },
  Pause: async (request) => migrationMessage(await service.pause(idOf(request))),
  Resume: async (request) => migrationMessage(await service.resume(idOf(request))),
  Cancel: async (request) => migrationMessage(await service.cancel(idOf(request), request.takeBack)),
  Cutover: async (request) => migrationMessage(await service.cutover(idOf(request))),
  DescribeImages: async ({ names }) => ({
    images: (await service.describeImages(checkedImageNames(names))).map(imageDescriptionMessage),
  }),
  Verify: async ({ what }) => ({ reports: (await service.verify(whatOf(what))).map(verifyReportMessage) }),
  GetStatus: () => statusMessage(status()),
  Unmount: async ({ mountpoint, lazy }) => ({ holders: await unmount({ mountpoint, lazy }) }),
});

const implementationOf = (
  handlers: Handlers,
  watchers: WatchStreams<MigrationIdMessage, MigrationSnapshot>,
  log: LogSink,
  tls: boolean,
): UntypedServiceImplementation => {
  const implementation: UntypedServiceImplementation = {
    WatchMigration: watchers.serve.bind(watchers),
  };
  for (const method of Object.keys(handlers) as UnaryMethod[])
    implementation[method] = unaryHandler(
      method,
      handlers[method] as (request: object, role: Role) => object,
      log,
      tls,
    ) as never;
  return implementation;
};

/**
 * Serves the network API of proto/migratefs.proto with health and reflection.
 * FAILED_PRECONDITION: the address is taken, not ours, or unsafe without certificates. INVALID_ARGUMENT: bad PEMs.
 */
export const serveControl = (options: ControlServerOptions): Promise<ControlServer> => {
  const { service, brokers, log } = options;
  const clock = options.clock ?? systemClock;
  const watchers = new WatchStreams<MigrationIdMessage, MigrationSnapshot>({
    method: 'WatchMigration',
    instead: 'GetMigration',
    source: service,
    idOf: ({ migrationId }) => migrationId,
    messageOf: migrationMessage,
    isFinal: ({ state }) => isFinal(state),
    log,
  });
  return serveGrpc({
    ...options,
    services: [
      {
        name: SERVICE_NAME,
        definition: serviceDefinition,
        implementation: implementationOf(
          handlersOf(options, clock),
          watchers,
          log,
          options.tls !== undefined,
        ),
      },
      ...(brokers
        ? [
            {
              name: BROKERS_NAME,
              definition: brokersDefinition,
              implementation: brokerImplementation(brokers, log),
            },
          ]
        : []),
    ],
    protoPaths: [PROTO_PATH],
    endStreams: () => watchers.close(),
  });
};
