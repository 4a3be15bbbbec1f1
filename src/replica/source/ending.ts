import type { PlainError } from '../../leaves/errors.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { migratefs } from '../wire/generated/data.js';
import type { PeerConnection } from '../wire/peer-connection.js';
import type { CutoverRequests } from './cutover-requests.js';
import { discardReplicas } from './discard.js';
import type { Log, SourceEnvironment } from './environment.js';
import type { ImageGroup } from './image-group.js';
import type { MigrationStatus } from './migration-status.js';
import type { Offer } from './offer.js';
import type { SourceWire } from './source-wire.js';
import type { Verification } from './verification.js';

/** Decided while something else may still be under way. */
interface Decision {
  readonly state: 'cancelled' | 'failed';
  readonly error?: PlainError | undefined;
}

export interface EndingOptions {
  readonly environment: SourceEnvironment;
  readonly group: ImageGroup;
  readonly wire: SourceWire;
  readonly status: MigrationStatus;
  readonly offer: Offer;
  readonly requests: CutoverRequests;
  readonly verification: Verification;
  readonly id: string;
  /** Data address of the target. */
  readonly target: string;
  readonly hello: migratefs.data.Hello.$Properties;
  readonly log: Log;
  /** The daemon stops. */
  readonly stopping: AbortSignal;
}

/** How a migration ends: decided once, for its writers at once, for the target in the background. */
export class Ending {
  /** Resolves when its images belong to nobody here any more. */
  readonly released: Promise<void>;
  readonly #options: EndingOptions;
  #decision: Decision | undefined;
  #idled: Promise<void> | undefined;
  /** The connection when it was decided: the first that is asked to discard. */
  #detached: PeerConnection | null = null;
  #resolveReleased!: () => void;

  constructor(options: EndingOptions) {
    this.#options = options;
    this.released = new Promise((resolve) => {
      this.#resolveReleased = resolve;
    });
  }

  get decided(): boolean {
    return this.#decision !== undefined;
  }

  /**
   * Writers are served as if nothing had happened from this moment on. False: it was decided before, the images are
   * offered, or it is over.
   */
  decide(state: Decision['state'], error?: PlainError): boolean {
    const { status, offer, verification, wire, id, log } = this.#options;
    if (this.#decision || offer.made || status.isFinal) return false;
    this.#decision = { state, error };
    verification.stop(`migration ${id} is over (${state})`);
    if (error) log('error', 'migration failed', { ...error });
    this.idle();
    this.#detached = wire.detach();
    return true;
  }

  idle(): void {
    const { group, environment, stopping } = this.#options;
    group.idle();
    this.#idled = environment.grace.elapsed(group.slots, environment.turn, stopping).catch(() => {});
  }

  /** Carries the decision out. */
  async carryOut(): Promise<void> {
    const { environment, status, requests, target, hello, stopping } = this.#options;
    const { state, error } = this.#decision!;
    await this.#idled;
    if (error) status.error = error;
    await this.release();
    status.transitionTo(state);
    requests.reject(
      new MigrateFsError(error?.code ?? 'CANCELLED', error?.message ?? 'the migration was cancelled'),
    );
    void discardReplicas(environment, this.#detached, target, hello, stopping);
  }

  async release(): Promise<void> {
    this.disown();
    await this.#options.group.release(this.#options.log);
  }

  /** What comes for the images from here on is not this migration's. */
  disown(): void {
    this.#resolveReleased();
  }
}
