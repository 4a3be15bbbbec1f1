import { serveControl } from '../../src/control/control-server.js';
import type { ControlServer } from '../../src/control/grpc-server.js';
import type { BrokerControl } from '../../src/leaves/broker.js';
import type { DaemonStatus } from '../../src/leaves/migration.js';
import type { TlsIdentity } from '../../src/leaves/tls-identity.js';
import { millis } from '../../src/leaves/units.js';
import { FakeMigrationControl } from './fake-migration-control.js';

export const daemonStatusExample: DaemonStatus = {
  version: '0.1.0',
  pid: 4242,
  hostname: 'host-a',
  imageDir: '/srv/images',
  mountpoint: '/mnt/images',
  transport: 'kernel',
  controlAddress: '127.0.0.1:7070',
  dataAddress: '127.0.0.1:7071',
  startedAt: millis(1_800_000_000_000),
};

export interface ControlFixture extends AsyncDisposable {
  readonly control: FakeMigrationControl;
  readonly server: ControlServer;
  /** Lines the server logged. */
  readonly logged: Record<string, unknown>[];
}

/** A control server on a free loopback port before a scripted replica layer. */
export const controlFixture = async (tls?: TlsIdentity, brokers?: BrokerControl): Promise<ControlFixture> => {
  const control = new FakeMigrationControl();
  const logged: Record<string, unknown>[] = [];
  const server = await serveControl({
    service: control,
    brokers,
    status: () => daemonStatusExample,
    listen: { host: '127.0.0.1', port: 0 },
    tls,
    log: (level, message, fields) => void logged.push({ level, message, ...fields }),
  });
  return { control, server, logged, [Symbol.asyncDispose]: () => server.close() };
};
