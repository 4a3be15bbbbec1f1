/** What the copier and the routed writer need of the world; the model test gives them another one. */

/** What became of a change that was sent: the target has it, or the connection broke before it said so. */
export type Outcome = 'acked' | 'lost';
export type Settled = (outcome: Outcome) => void;

/** A change to one image of the group on its way to the target. Lengths and offsets in bytes. */
export type Change =
  | {
      readonly kind: 'data';
      readonly image: number;
      readonly offset: number;
      /** Must not change until the change is settled. */
      readonly payload: Uint8Array;
      readonly mirror: boolean;
    }
  | {
      readonly kind: 'hole';
      readonly image: number;
      readonly offset: number;
      readonly length: number;
      readonly mirror?: boolean;
    }
  | { readonly kind: 'resize'; readonly image: number; readonly size: number; readonly mirror?: boolean }
  | {
      readonly kind: 'allocate';
      readonly image: number;
      readonly mode: number;
      readonly offset: number;
      readonly length: number;
    }
  | {
      readonly kind: 'sync';
      readonly image: number;
      /** Nobody waits for it but the migration itself, which sees to its deadline. */
      readonly ahead?: boolean;
    };

/** Runs of blocks of one image that are read and sent elsewhere. */
export interface BulkBatch {
  readonly image: number;
  /** Backing descriptor. */
  readonly fd: number;
  /** Offset and length of each run, one run after the other. */
  readonly runs: Float64Array;
  /** Zeroes are looked for in pieces of this size. */
  readonly piece: number;
}

/** The next `runs` runs of a batch; `bytes`: payload. */
export type RunsSettled = (outcome: Outcome, runs: number, bytes: number) => void;

/** Copies without this thread's reading and sending: the stream. */
export interface BulkPort {
  /**
   * Reads and sends the runs in the order given, behind those of the batches before. Resolves with the payload bytes sent,
   * once all are read and on their way. `settled` is called until all are settled, for the next runs in their order, which
   * may be before. Rejects when the image cannot be read; then `settled` is not called any more.
   */
  copy(batch: BulkBatch, settled: RunsSettled): Promise<number>;
}

export interface WirePort {
  /** Whether there is a connection now. */
  readonly open: boolean;
  /** What copies go over instead of `send`, if anything. */
  readonly bulk?: BulkPort | null;
  /**
   * Sends after everything sent before. `settled` is called exactly once, later or, without a connection, at once
   * with `lost`.
   */
  send(change: Change, settled: Settled): void;
}

/** A part of a file that holds data, or a hole. */
export interface Segment {
  readonly offset: number;
  readonly length: number;
  readonly data: boolean;
}

export interface ImagePort {
  /** Backing descriptor, if there is one. */
  readonly fd?: number;
  /** Bytes. */
  size(): number;
  /** The first data at or after `offset`, to its end; null when there is none. */
  nextData(offset: number): { readonly offset: number; readonly length: number } | null;
  /** Covers the range, in order; what lies past the end of the file is a hole. */
  segments(offset: number, length: number): Segment[];
  /** Fills `into` from `offset`; returns the bytes read, fewer only at the end of the file. */
  read(into: Uint8Array, offset: number): Promise<number>;
}

/** What is counted while copying and mirroring, for progress and rates. */
export interface TransferCounters {
  /** Payload bytes put on the wire. */
  sent(bytes: number, kind: 'copy' | 'mirror'): void;
  /** Payload bytes the target acknowledged. */
  acked(bytes: number): void;
}
