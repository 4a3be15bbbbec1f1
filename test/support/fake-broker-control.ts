import type {
  BackOffAnswer,
  BackOffRequest,
  BrokerControl,
  BrokerSnapshot,
  PathLink,
} from '../../src/leaves/broker.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { bytes, bytesPerSecond, MiB, millis, UNLIMITED } from '../../src/leaves/units.js';

export const brokerExample: BrokerSnapshot = {
  migrationId: 'm1',
  terms: {
    danger: 2,
    warning: 2.5,
    important: true,
    period: millis(4_000),
    quietPeriods: 7,
    step: bytesPerSecond(12_000_000),
    floor: bytesPerSecond(2_000_000),
    diskFloor: bytesPerSecond(3_000_000),
    vmmTime: millis(5_000),
  },
  period: millis(4_000),
  path: [
    { link: 'host-a', sharers: [] },
    {
      link: 'tor3',
      capacity: bytesPerSecond(1_250_000_000),
      sharers: [
        { server: '10.0.0.2:7070', migrationId: 'm7' },
        { server: '[::1]:7170', migrationId: 'm8' },
      ],
    },
  ],
  zone: 'warning',
  ratio: 2.25,
  netLimit: bytesPerSecond(41_500_000),
  diskLimit: UNLIMITED,
  hotLinks: ['tor3'],
  askedBy: ['m7'],
  bytesLeft: bytes(512 * MiB),
  reason: 'reduced to 41.5 MB/s: tor3 hot, laxity 2.3',
  decidedAt: millis(1_800_000_000_123),
  decisions: 17,
  ended: false,
};

/** The brokers of a daemon that the control API drives, with a script in their place. */
export class FakeBrokerControl implements BrokerControl {
  readonly brokers = new Map<string, BrokerSnapshot>();
  readonly calls: unknown[] = [];
  answer: BackOffAnswer = 'obeyed';

  async get(migrationId: string): Promise<BrokerSnapshot> {
    const found = this.brokers.get(migrationId);
    if (!found) throw new MigrateFsError('NOT_FOUND', `no broker of migration ${migrationId}`);
    return found;
  }

  async list(): Promise<readonly BrokerSnapshot[]> {
    return [...this.brokers.values()];
  }

  async setPath(migrationId: string, path: readonly PathLink[]): Promise<BrokerSnapshot> {
    this.calls.push(['setPath', migrationId, path]);
    const changed = { ...(await this.get(migrationId)), path };
    this.brokers.set(migrationId, changed);
    return changed;
  }

  async backOff(request: BackOffRequest): Promise<BackOffAnswer> {
    this.calls.push(['backOff', request]);
    return this.answer;
  }
}
