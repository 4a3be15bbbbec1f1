/** The monitor of one QEMU as a driver uses it; every command has a limit of time. */
import type { Clock } from '../../leaves/clock.js';
import { MigrateFsError } from '../../leaves/errors.js';
import type { Millis } from '../../leaves/units.js';
import { parseQmpAddress, QmpClient } from './qmp.js';

/** What QEMU says of its outgoing or incoming migration; without a status there was none yet. */
export interface MigrationInfo {
  /** As QEMU names it: `active`, `completed`, `failed`, `cancelled` and others. */
  readonly status?: string;
  readonly error?: string;
  /** Milliseconds. */
  readonly downtime?: number;
  readonly totalTime?: number;
  /** Bytes of RAM sent, and left. */
  readonly ramSent?: number;
  readonly ramLeft?: number;
}

export interface MonitorOptions {
  readonly clock: Clock;
  /** Longest time for one answer. */
  readonly answerMax: Millis;
  readonly signal?: AbortSignal | undefined;
}

const numberOf = (key: string, value: unknown): object => (typeof value === 'number' ? { [key]: value } : {});

export class Monitor implements Disposable {
  readonly who: string;
  readonly #client: QmpClient;
  readonly #options: MonitorOptions;

  private constructor(client: QmpClient, who: string, options: MonitorOptions) {
    this.#client = client;
    this.who = who;
    this.#options = options;
  }

  /** `who` names it in errors. UNAVAILABLE when it cannot be reached. */
  static async open(address: string, who: string, options: MonitorOptions): Promise<Monitor> {
    const parsed = parseQmpAddress(address);
    const client = await limited(who, options, (signal) => QmpClient.open(parsed, who, signal));
    return new Monitor(client, who, options);
  }

  call(command: string, args: object = {}): Promise<unknown> {
    return limited(this.who, this.#options, (signal) => this.#client.call(command, args, signal));
  }

  /** Such as `running`, `paused`, `inmigrate`, `postmigrate`. */
  async runState(): Promise<string> {
    const { status } = (await this.call('query-status')) as { readonly status?: unknown };
    return String(status);
  }

  async migration(): Promise<MigrationInfo> {
    const answer = (await this.call('query-migrate')) as Readonly<Record<string, unknown>>;
    const ram = (answer['ram'] ?? {}) as Readonly<Record<string, unknown>>;
    const { status } = answer;
    const error = answer['error-desc'];
    return {
      ...(typeof status === 'string' && status !== 'none' && { status }),
      ...(typeof error === 'string' && { error: error.replace(/\s+/g, ' ') }),
      ...numberOf('downtime', answer['downtime']),
      ...numberOf('totalTime', answer['total-time']),
      ...numberOf('ramSent', ram['transferred']),
      ...numberOf('ramLeft', ram['remaining']),
    };
  }

  /** Switches these on. FAILED_PRECONDITION when this QEMU does not have one of them. */
  async setCapabilities(wanted: readonly string[]): Promise<void> {
    const known = (await this.call('query-migrate-capabilities')) as readonly {
      readonly capability: string;
    }[];
    const missing = wanted.find((name) => !known.some(({ capability }) => capability === name));
    if (missing !== undefined)
      throw new MigrateFsError(
        'FAILED_PRECONDITION',
        `${this.who} does not have the capability '${missing}'`,
      );
    const capabilities = wanted.map((capability) => ({ capability, state: true }));
    await this.call('migrate-set-capabilities', { capabilities });
  }

  /** Ends this QEMU; that the connection breaks is part of it. */
  async quit(): Promise<void> {
    try {
      await this.call('quit');
    } catch (error) {
      if (!(error instanceof MigrateFsError) || error.code !== 'UNAVAILABLE') throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

const limited = async <T>(
  who: string,
  { clock, answerMax, signal }: MonitorOptions,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> => {
  const late = new AbortController();
  const forget = clock.after(answerMax, () =>
    late.abort(
      new MigrateFsError(
        'UNAVAILABLE',
        `${who} does not answer within ${answerMax} ms: a monitor serves one client at a time`,
      ),
    ),
  );
  try {
    return await work(signal ? AbortSignal.any([signal, late.signal]) : late.signal);
  } finally {
    forget();
  }
};
