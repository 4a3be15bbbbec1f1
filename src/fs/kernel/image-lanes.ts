import type { Millis } from '../../leaves/units.js';
import { MiB, millis } from '../../leaves/units.js';
import { Errno } from '../errno.js';
import type { ImageSlot, ImageTable } from '../image-table.js';
import { HandOver } from '../image-table.js';
import type { BitmapAnnouncement } from '../participant.js';
import { isFlush } from './data-operations.js';
import { Opcode } from './protocol.js';
import { replyToKernel } from './reply.js';
import type { Seat, Seats } from './seats.js';
import type { ServiceThread } from './service-thread.js';
import type { FromThread, HandedOver } from './thread-messages.js';

/** Images in a call at the same time; others wait. */
const LANE_THREADS_MAX = 16;
/** Of one lane; more are refused with EIO, as a disk that does not answer gives in the end. */
const LANE_REQUESTS_MAX = 4096;
/** Payload that waits in all lanes together; the same. */
const LANES_BYTES_MAX = 256 * MiB;
/** A call that takes longer is not quick. */
const QUICK_CALL = millis(100);
/** An image goes back to the data workers when every call has been quick for so long; doubled each time it returns. */
const QUIET_MIN = millis(1_000);
const QUIET_MAX = millis(60_000);
/** A thread that has had nothing to do for so long ends. */
const IDLE_MAX = millis(5_000);

interface Item extends HandedOver {
  readonly unique: bigint;
  readonly opcode: number;
  readonly caller: number;
}

interface Current {
  readonly item: Item;
  readonly since: Millis;
}

interface LaneThread {
  readonly seat: Seat;
  readonly thread: ServiceThread;
  lane: Lane | undefined;
  idleSince: Millis;
  ending: boolean;
}

/** What waits for one image; its flushes have a lane of their own, because they are slow with nothing wrong. */
interface Lane {
  readonly slot: ImageSlot;
  readonly bit: number;
  readonly queue: Item[];
  current: Current | undefined;
  refusing: boolean;
}

/** An image whose requests are handed over. */
interface Flag {
  readonly slot: ImageSlot;
  readonly bit: number;
  /** Since when no call was seen to take long. */
  quietSince: Millis;
  quiet: Millis;
  raised: boolean;
}

export interface ImageLanesOptions {
  readonly table: ImageTable;
  readonly seats: Seats;
  readonly start: (
    seat: Seat,
    announced: readonly BitmapAnnouncement[],
    onMessage: (message: Exclude<FromThread, { type: 'ready' }>) => void,
  ) => ServiceThread;
  readonly now: () => Millis;
  readonly log: (level: 'info' | 'warn' | 'error', message: string, fields: object) => void;
}

const bitOf = (opcode: number): number => (isFlush(opcode) ? HandOver.flush : HandOver.io);
const keyOf = (slot: ImageSlot, bit: number): number => slot * 4 + bit;

const itemOf = (handed: HandedOver): Item => {
  const { buffer, byteOffset } = handed.request;
  const words = new Uint32Array(buffer, byteOffset, 10);
  const unique = (BigInt(words[3]!) << 32n) | BigInt(words[2]!);
  return { ...handed, unique, opcode: words[1]!, caller: words[8]! };
};

/** Requests that no data worker waits for: queues by image, in the main thread, and the few threads that serve them. */
export class ImageLanes {
  readonly #options: ImageLanesOptions;
  readonly #lanes = new Map<number, Lane>();
  readonly #threads = new Set<LaneThread>();
  readonly #flags = new Map<number, Flag>();
  #bytes = 0;

  constructor(options: ImageLanesOptions) {
    this.#options = options;
  }

  /** A request from a data worker. It is answered, whatever happens. */
  accept(handed: HandedOver): void {
    const item = itemOf(handed);
    const lane = this.#laneOf(item);
    const full =
      lane.queue.length >= LANE_REQUESTS_MAX || this.#bytes + item.request.length > LANES_BYTES_MAX;
    if (full && lane.queue.length > 0) {
      replyToKernel(item.fuseFd, item.unique, -Errno.EIO, false);
      if (!lane.refusing)
        this.#options.log('error', 'too much waits for an image that does not answer: EIO', {
          slot: lane.slot,
          requests: lane.queue.length,
        });
      lane.refusing = true;
      return;
    }
    this.#bytes += item.request.length;
    lane.queue.push(item);
    this.#pump();
  }

  /** A call for the image was seen not to return: data workers hand such requests over from now on. */
  raise(slot: ImageSlot, opcode: number): void {
    const bit = bitOf(opcode);
    const now = this.#options.now();
    const flag = this.#flags.get(keyOf(slot, bit)) ?? {
      slot,
      bit,
      quietSince: now,
      quiet: QUIET_MIN,
      raised: false,
    };
    this.#flags.set(keyOf(slot, bit), flag);
    flag.quietSince = now;
    if (flag.raised) return;
    flag.raised = true;
    this.#options.table.setHandOver(slot, this.#options.table.handOver(slot) | bit);
    this.#options.log('warn', 'a backing file does not answer; its requests wait by themselves', { slot });
  }

  /**
   * Ends a request that waits here, with EINTR. `waiting`: it is here, but inside a call that must not be left alone.
   */
  interrupt(unique: bigint, ends: (caller: number) => boolean): 'ended' | 'waiting' | 'unknown' {
    for (const lane of this.#lanes.values()) {
      const { current } = lane;
      if (current?.item.unique === unique) return endCall(current.item, ends);
      const at = lane.queue.findIndex((item) => item.unique === unique);
      if (at < 0) continue;
      const item = lane.queue[at]!;
      if (!ends(item.caller)) return 'waiting';
      lane.queue.splice(at, 1);
      this.#bytes -= item.request.length;
      replyToKernel(item.fuseFd, unique, -Errno.EINTR, false);
      return 'ended';
    }
    return 'unknown';
  }

  /** `stuck`: where threads other than lanes are in calls that do not return. */
  tick(stuck: readonly { readonly slot: ImageSlot; readonly opcode: number }[], stall: Millis): void {
    const now = this.#options.now();
    const busy = new Set(stuck.map(({ slot, opcode }) => keyOf(slot, bitOf(opcode))));
    for (const [key, lane] of this.#lanes) {
      const took = lane.current === undefined ? 0 : now - lane.current.since;
      if (took >= stall) this.raise(lane.slot, lane.current!.item.opcode);
      if (took >= QUICK_CALL) busy.add(key);
      if (lane.queue.length === 0) {
        lane.refusing = false;
        if (lane.current === undefined) this.#lanes.delete(key);
      }
    }
    for (const [key, flag] of this.#flags) {
      if (busy.has(key)) flag.quietSince = now;
      else if (flag.raised && now - flag.quietSince >= flag.quiet) this.#lower(flag, now);
      else if (!flag.raised && now - flag.quietSince >= QUIET_MAX) this.#flags.delete(key);
    }
    for (const thread of this.#threads)
      if (!thread.lane && !thread.ending && now - thread.idleSince >= IDLE_MAX) end(thread);
    this.#pump();
  }

  /** Threads in a call that has lasted `stall` already. */
  stuck(stall: Millis): number {
    const now = this.#options.now();
    return [...this.#lanes.values()].filter(({ current }) => current && now - current.since >= stall).length;
  }

  /** Ends the threads; resolves to those that are in calls that do not return by `late`. */
  async close(late: Promise<void>): Promise<readonly ServiceThread[]> {
    for (const thread of this.#threads) end(thread);
    const left = new Set([...this.#threads].map(({ thread }) => thread));
    const ended = [...left].map((thread) => thread.ended.then(() => left.delete(thread)));
    await Promise.race([Promise.allSettled(ended), late]);
    return [...left];
  }

  #lower(flag: Flag, now: Millis): void {
    const { table, log } = this.#options;
    flag.raised = false;
    flag.quietSince = now;
    flag.quiet = millis(Math.min(QUIET_MAX, flag.quiet * 2));
    table.setHandOver(flag.slot, table.handOver(flag.slot) & ~flag.bit);
    log('info', 'a backing file answers again', { slot: flag.slot });
  }

  #laneOf({ slot, opcode }: Item): Lane {
    const bit = bitOf(opcode);
    let lane = this.#lanes.get(keyOf(slot, bit));
    if (!lane) {
      lane = { slot, bit, queue: [], current: undefined, refusing: false };
      this.#lanes.set(keyOf(slot, bit), lane);
    }
    return lane;
  }

  /** Gives every lane that waits a thread, as far as there are any. */
  #pump(): void {
    for (const [key, lane] of this.#lanes) {
      if (lane.current || lane.queue.length === 0) continue;
      const thread = this.#idleThread();
      if (!thread) return;
      // Behind the others, which have their turn before it: with more images than threads the last would never have one.
      this.#lanes.delete(key);
      this.#lanes.set(key, lane);
      const item = lane.queue.shift()!;
      this.#bytes -= item.request.length;
      lane.current = { item, since: this.#options.now() };
      thread.lane = lane;
      const { slot, fuseFd, request } = item;
      thread.thread.post({ slot, fuseFd, request }, [request.buffer as ArrayBuffer]);
    }
  }

  #idleThread(): LaneThread | undefined {
    for (const thread of this.#threads) if (!thread.lane && !thread.ending) return thread;
    if (this.#threads.size >= LANE_THREADS_MAX) return undefined;
    const taken = this.#options.seats.take();
    if (!taken) return undefined;
    const { seat, announced } = taken;
    const thread: LaneThread = {
      seat,
      thread: this.#options.start(seat, announced, (message) => this.#onMessage(thread, message)),
      lane: undefined,
      idleSince: this.#options.now(),
      ending: false,
    };
    this.#threads.add(thread);
    return thread;
  }

  #onMessage(thread: LaneThread, message: Exclude<FromThread, { type: 'ready' }>): void {
    const now = this.#options.now();
    if (message.type === 'replaced') {
      this.#threads.delete(thread);
      this.#options.seats.giveBack(thread.seat.participant, message.port);
      this.#pump();
      return;
    }
    if (message.type !== 'served') return;
    const lane = thread.lane!;
    const flag = this.#flags.get(keyOf(lane.slot, lane.bit));
    if (flag && now - lane.current!.since >= QUICK_CALL) flag.quietSince = now;
    lane.current = undefined;
    thread.lane = undefined;
    thread.idleSince = now;
    this.#pump();
  }
}

const end = (thread: LaneThread): void => {
  if (thread.ending) return;
  thread.ending = true;
  thread.thread.post(null);
};

/**
 * Ends a request whose call is under way in another thread; what that one answers later is not expected by the kernel
 * any more, and dropped. Not a change: it would be performed after its caller was told that it was not, perhaps over
 * what was written since.
 */
export const endCall = (
  call: {
    readonly fuseFd: number;
    readonly unique: bigint;
    readonly opcode: number;
    readonly caller: number;
  },
  ends: (caller: number) => boolean,
): 'ended' | 'waiting' => {
  if (call.opcode === Opcode.WRITE || call.opcode === Opcode.FALLOCATE || !ends(call.caller))
    return 'waiting';
  replyToKernel(call.fuseFd, call.unique, -Errno.EINTR, false);
  return 'ended';
};
