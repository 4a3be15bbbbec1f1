/** The vocabulary of a migration, shared by every layer: states, what is asked for, what is reported. */
import type { BrokerChoice } from './broker.js';
import type { PlainError } from './errors.js';
import type { LinkLoad } from './hot-spots.js';
import type { TransferLoad } from './time-left.js';
import type { Bytes, BytesPerSecond, Generation, Millis } from './units.js';

/** States of a migration, on either side (DESIGN 3.3). */
export type MigrationState =
  | 'preparing'
  | 'bulk-copy'
  | 'dirty-resend'
  | 'mirroring'
  | 'cutover'
  | 'completed'
  | 'paused'
  | 'interrupted'
  | 'cancelled'
  | 'failed';

/** Legal edges. A state without edges is final. */
export const MIGRATION_EDGES: Readonly<Record<MigrationState, readonly MigrationState[]>> = {
  preparing: ['bulk-copy', 'interrupted', 'cancelled', 'failed'],
  'bulk-copy': ['dirty-resend', 'paused', 'interrupted', 'cancelled', 'failed'],
  'dirty-resend': ['mirroring', 'paused', 'interrupted', 'cancelled', 'failed'],
  mirroring: ['cutover', 'dirty-resend', 'paused', 'interrupted', 'cancelled', 'failed'],
  cutover: ['completed', 'mirroring', 'interrupted', 'cancelled', 'failed'],
  paused: ['bulk-copy', 'dirty-resend', 'interrupted', 'cancelled', 'failed'],
  interrupted: ['bulk-copy', 'dirty-resend', 'cutover', 'completed', 'paused', 'cancelled', 'failed'],
  completed: [],
  cancelled: [],
  failed: [],
};

export const isFinal = (state: MigrationState): boolean => MIGRATION_EDGES[state].length === 0;

/**
 * Who starts the cutover. `explicit`: the Cutover call. `on-first-write`: a guest write on the target while in
 * sync. `when-in-sync`: at once on reaching `mirroring`. The Cutover call works under all three.
 */
export type CutoverPolicy = 'explicit' | 'on-first-write' | 'when-in-sync';
export const CUTOVER_POLICIES: readonly CutoverPolicy[] = ['explicit', 'on-first-write', 'when-in-sync'];

export interface MigrationRequest {
  /** Image names relative to the exported directory; one VM's disks, moved as a group. At least one. */
  readonly images: readonly string[];
  /** Data address `host:port` of the target daemon. */
  readonly target: string;
  readonly cutover: CutoverPolicy;
  readonly netLimit: BytesPerSecond;
  readonly diskLimit: BytesPerSecond;
  /** Wall-clock deadline, milliseconds since the epoch; absent: none. */
  readonly deadline?: Millis;
  /** 0 (least) to 9 (most urgent). */
  readonly priority: number;
  /** Absent: a broker with every default. */
  readonly broker?: BrokerChoice;
  /** Given by the caller: a start with the id of a migration that is listed answers with that one. */
  readonly requestId?: string;
}

export interface ImageProgress {
  readonly name: string;
  readonly size: Bytes;
  /** Bytes the source allocates. */
  readonly allocated: Bytes;
  /** Dirty and not yet acknowledged by the target. */
  readonly left: Bytes;
  readonly dirty: Bytes;
  readonly generation: Generation;
}

/** Everything that is reported of a migration; a plain value, safe to post between threads. */
export interface MigrationSnapshot {
  readonly id: string;
  readonly role: 'source' | 'target';
  readonly state: MigrationState;
  /** The peer's data address as this side knows it. */
  readonly peer: string;
  readonly images: readonly ImageProgress[];
  readonly cutover: CutoverPolicy;
  readonly priority: number;
  readonly deadline?: Millis;
  readonly startedAt: Millis;
  readonly endedAt?: Millis;
  /** Bytes allocated on the source when it began: 100 % of the bulk copy. */
  readonly bytesTotal: Bytes;
  /** Bytes still dirty or unacknowledged. */
  readonly bytesLeft: Bytes;
  /** Payload bytes put on the wire, resends and mirrored writes included. */
  readonly bytesSent: Bytes;
  /** Of those, what the target acknowledged; absent at the target, and in the network API. */
  readonly bytesAcked?: Bytes;
  readonly bytesResent: Bytes;
  readonly bytesMirrored: Bytes;
  /** Smoothed bytes per second. */
  readonly netRate: number;
  readonly writeRate: number;
  readonly dirtyRate: number;
  /** The limits that count: the lower of the operator's and the broker's. */
  readonly netLimit: BytesPerSecond;
  readonly diskLimit: BytesPerSecond;
  /** Whose they are; absent: has set none. */
  readonly operatorNetLimit?: BytesPerSecond;
  readonly operatorDiskLimit?: BytesPerSecond;
  readonly brokerNetLimit?: BytesPerSecond;
  readonly brokerDiskLimit?: BytesPerSecond;
  /** Of the request that started it. */
  readonly requestId?: string;
  /** Estimated milliseconds until in sync; absent while unknown. */
  readonly eta?: Millis;
  /** The band around `eta`; `etaHigh` is absent where there is no upper end. */
  readonly etaLow?: Millis;
  readonly etaHigh?: Millis;
  /** What the estimate is made from; of a source from the bulk copy until the cutover. */
  readonly load?: TransferLoad;
  /** Why it is interrupted or has failed. */
  readonly error?: PlainError;
  /** How long the first target write (or the Cutover call) waited for ownership, milliseconds. */
  readonly cutoverStall?: Millis;
}

export interface LimitChange {
  readonly netLimit?: BytesPerSecond;
  readonly diskLimit?: BytesPerSecond;
}

/** Who sets a limit. Each has its own, which the other can neither change nor release. */
export type LimitSetter = 'operator' | 'broker';

/** What a host knows of an image. */
export type ImageDescription = { readonly name: string } & (
  | {
      readonly size: Bytes;
      readonly allocated: Bytes;
      /** `owner`: accepts writes. `fenced`: `peer` owns it. `replica`: an unfinished copy, sent by `peer`. */
      readonly role: 'owner' | 'fenced' | 'replica';
      readonly generation: Generation;
      readonly peer?: string;
      /** The migration under way that it belongs to, on either side. */
      readonly migrationId?: string;
    }
  /** NOT_FOUND: there is no such file. Others: it cannot be used as an image. */
  | { readonly error: PlainError }
);

export interface VerifyReport {
  readonly image: string;
  readonly bytesCompared: Bytes;
  readonly mismatches: readonly { readonly offset: Bytes; readonly length: Bytes }[];
}

/** What the control API may ask of the replica layer; every method rejects with a `MigrateFsError`. */
export interface MigrationControl {
  start(request: MigrationRequest): Promise<MigrationSnapshot>;
  get(id: string): Promise<MigrationSnapshot>;
  list(): Promise<readonly MigrationSnapshot[]>;
  /** Changes the limits of the operator (the default) or of the broker; the lower of the two counts. */
  setLimits(id: string, change: LimitChange, by?: LimitSetter): Promise<MigrationSnapshot>;
  pause(id: string): Promise<MigrationSnapshot>;
  resume(id: string): Promise<MigrationSnapshot>;
  /** Never waits for the peer. Idempotent on a cancelled migration. `takeBack`: see `CancelRequest`. */
  cancel(id: string, takeBack?: boolean): Promise<MigrationSnapshot>;
  /** Resolves when the target owns the images. */
  cutover(id: string): Promise<MigrationSnapshot>;
  /** One for each name, in that order. INVALID_ARGUMENT: a name that could leave the exported directory. */
  describeImages(names: readonly string[]): Promise<readonly ImageDescription[]>;
  /** `what` is a migration id or an image name; compares both sides while in sync. */
  verify(what: string): Promise<readonly VerifyReport[]>;
  /** Calls `listener` on every state change and about twice a second while bytes move; returns the unsubscribe. */
  watch(listener: (snapshot: MigrationSnapshot) => void): () => void;
}

/** Who this daemon is. */
export interface DaemonStatus {
  readonly version: string;
  readonly pid: number;
  readonly hostname: string;
  readonly imageDir: string;
  readonly mountpoint: string;
  readonly transport: 'kernel' | 'fuse-native';
  readonly controlAddress: string;
  readonly dataAddress: string;
  readonly startedAt: Millis;
  /** Links whose load is known here; absent: none. */
  readonly links?: readonly LinkLoad[];
}
