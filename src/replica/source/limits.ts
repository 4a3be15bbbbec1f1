import type { Clock } from '../../leaves/clock.js';
import type { LimitChange, LimitSetter, MigrationSnapshot } from '../../leaves/migration.js';
import { TokenBucket } from '../../leaves/token-bucket.js';
import type { BytesPerSecond } from '../../leaves/units.js';
import { UNLIMITED } from '../../leaves/units.js';

type LimitPair = Required<LimitChange>;
type ReportedLimits = Pick<
  MigrationSnapshot,
  'netLimit' | 'diskLimit' | 'operatorNetLimit' | 'operatorDiskLimit' | 'brokerNetLimit' | 'brokerDiskLimit'
>;

const SETTERS: readonly LimitSetter[] = ['operator', 'broker'];

/**
 * The two control points of one migration. An operator and a broker set their limits apart from each other; the buckets
 * run at the lower one.
 */
export class Limits {
  /** Paces what is sent. */
  readonly net: TokenBucket;
  /** Paces what the guest writes. */
  readonly disk: TokenBucket;
  readonly #set: Readonly<Record<LimitSetter, { -readonly [K in keyof LimitPair]: BytesPerSecond }>>;

  /** `initial`: the operator's. */
  constructor(clock: Clock, { netLimit, diskLimit }: LimitPair) {
    this.#set = {
      operator: { netLimit, diskLimit },
      broker: { netLimit: UNLIMITED, diskLimit: UNLIMITED },
    };
    this.net = new TokenBucket(clock, netLimit);
    this.disk = new TokenBucket(clock, diskLimit);
  }

  get diskLimited(): boolean {
    return Number.isFinite(this.disk.rate);
  }

  change({ netLimit, diskLimit }: LimitChange, by: LimitSetter): void {
    const set = this.#set[by];
    if (netLimit !== undefined) set.netLimit = netLimit;
    if (diskLimit !== undefined) set.diskLimit = diskLimit;
    this.#apply(this.net, 'netLimit');
    this.#apply(this.disk, 'diskLimit');
  }

  /** What is reported: a limit that nobody has set is left out of those that say whose they are. */
  describe(): ReportedLimits {
    const { operator, broker } = this.#set;
    return {
      netLimit: this.net.rate,
      diskLimit: this.disk.rate,
      ...(operator.netLimit !== UNLIMITED && { operatorNetLimit: operator.netLimit }),
      ...(operator.diskLimit !== UNLIMITED && { operatorDiskLimit: operator.diskLimit }),
      ...(broker.netLimit !== UNLIMITED && { brokerNetLimit: broker.netLimit }),
      ...(broker.diskLimit !== UNLIMITED && { brokerDiskLimit: broker.diskLimit }),
    };
  }

  #apply(bucket: TokenBucket, which: keyof LimitPair): void {
    const lower = Math.min(...SETTERS.map((setter) => this.#set[setter][which])) as BytesPerSecond;
    // A bucket forgets a part of its debt when its rate is set.
    if (lower !== bucket.rate) bucket.setRate(lower);
  }
}
