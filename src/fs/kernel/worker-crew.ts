import type { Clock } from '../../leaves/clock.js';
import { pause } from '../../leaves/clock.js';
import type { Millis } from '../../leaves/units.js';
import { millis } from '../../leaves/units.js';
import { ImageTable } from '../image-table.js';
import { lastErrno, POLLIN, rawPoll } from '../libc.js';
import type { MountOptions } from '../mounted-file-system.js';
import type { BitmapAnnouncement } from '../participant.js';
import type { Activity } from './activity-table.js';
import { ActivityTable } from './activity-table.js';
import { isBeingKilled } from './caller.js';
import type { CrewLook } from './crew-size.js';
import { CrewSize } from './crew-size.js';
import { endCall, ImageLanes } from './image-lanes.js';
import type { Seat } from './seats.js';
import { Seats } from './seats.js';
import type { ServiceThread } from './service-thread.js';
import { startThread } from './service-thread.js';
import type { DataWorkerSetup, FromThread, LaneSetup } from './thread-messages.js';

/** How often the threads are looked at. */
const LOOK_INTERVAL = millis(250);
/** A call that takes longer has its thread replaced. */
const STALL = millis(500);
/** Threads beside the data workers: replacements, and lanes. */
const SPARE_SEATS = 32;
/** Signals that do not kill end a request only when it has gone on for this long: nobody expects EINTR of a disk. */
const INTERRUPT_PATIENCE = millis(5_000);
/** An interrupt may overtake the request that it is about, on its way from thread to thread. */
const INTERRUPT_UNKNOWN_MAX = millis(2_000);
const INTERRUPTS_MAX = 4096;
/** How long the end of the mount waits for threads in a call. */
const END_MAX = millis(1_000);

type Shared = Pick<DataWorkerSetup, 'images' | 'grace' | 'handles' | 'ownerWake' | 'stop'>;

export interface WorkerCrewOptions {
  readonly shared: Shared;
  /** Workers to begin with, and at least. */
  readonly workers: number;
  /** One for each worker that there may be. */
  readonly fuseFds: readonly number[];
  readonly rings: readonly SharedArrayBuffer[];
  readonly clock: Clock;
  readonly log: MountOptions['log'];
  readonly onCrash: (error: unknown) => void;
  /** Every interrupt: the request may be at the replica thread. */
  readonly onInterrupt: (unique: bigint) => void;
}

/** Where a worker reads and what it fills; whoever replaces it goes on there. */
interface Station {
  readonly fuseFd: number;
  readonly ring: SharedArrayBuffer;
  seat: Seat;
  thread: ServiceThread;
  /** The call it was in when last looked at, and since when. */
  seen: { readonly sequence: number; readonly since: Millis } | undefined;
  /** How many calls it had begun when last looked at. */
  calls: number;
  /** It was one too many, and ends. */
  retired: boolean;
}

/** Where a further worker would read. */
type Place = Pick<Station, 'fuseFd' | 'ring'>;

interface Stuck {
  readonly activity: Activity;
  readonly thread: ServiceThread;
}

/**
 * The threads that serve data: workers, as many as the load takes within what was asked for; those that serve in the
 * place of one whose call does not return; and the lanes that such images are left to.
 */
export class WorkerCrew {
  readonly seats: Seats;
  readonly ready: Promise<void>;
  /** When every worker in service has ended: the mount is gone. */
  readonly ended: Promise<void>;
  readonly #options: WorkerCrewOptions;
  readonly #activity = new ActivityTable();
  readonly #lanes: ImageLanes;
  readonly #stations: Station[];
  readonly #vacant: Place[];
  readonly #size: CrewSize;
  readonly #pollfd: Int32Array;
  /** Replaced workers by participant. */
  readonly #stuck = new Map<number, Stuck>();
  readonly #interrupts = new Map<bigint, Millis>();
  #forgetTick: () => void = () => {};
  #exhausted = false;
  #lookedAt: Millis;
  #resolveEnded: () => void = () => {};
  #left: number;

  constructor(options: WorkerCrewOptions) {
    const { fuseFds, rings, shared, workers } = options;
    this.#options = options;
    this.seats = new Seats(fuseFds.length + SPARE_SEATS);
    this.#lanes = new ImageLanes({
      table: new ImageTable(shared.images),
      seats: this.seats,
      start: (seat, announced, onMessage) => this.#startLane(seat, announced, onMessage),
      now: () => options.clock.now(),
      log: options.log,
    });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#left = workers;
    this.#lookedAt = options.clock.now();
    this.#size = new CrewSize(workers, fuseFds.length);
    this.#pollfd = Int32Array.of(fuseFds[0]!, POLLIN);
    const places = fuseFds.map((fuseFd, index) => ({ fuseFd, ring: rings[index]! }));
    this.#vacant = places.slice(workers).reverse();
    this.#stations = places.slice(0, workers).map((place) => this.#staff(place)!);
    this.#activity.limitFlushes(workers - 1);
    this.ready = Promise.all(this.#stations.map(({ thread }) => thread.ready)).then(() => {});
    this.ready.catch(() => {}); // whoever mounts waits for it
    this.#tickLater();
  }

  /** How many threads are in calls that do not return. */
  get stuck(): number {
    return this.#stuck.size + this.#lanes.stuck(STALL);
  }

  /** After `ended`. Resolves to the threads that are left behind in calls that do not return. */
  async close(): Promise<readonly ServiceThread[]> {
    this.#forgetTick();
    const stop = new AbortController();
    const late = pause(this.#options.clock, END_MAX, stop.signal).catch(() => {});
    const stuck = new Set([...this.#stuck.values()].map(({ thread }) => thread));
    const back = [...stuck].map((thread) => thread.ended.then(() => stuck.delete(thread)));
    const [lanes] = await Promise.all([
      this.#lanes.close(late),
      Promise.race([Promise.allSettled(back), late]),
    ]);
    stop.abort();
    this.seats.close();
    return [...stuck, ...lanes];
  }

  #staff(place: Place): Station | undefined {
    const taken = this.seats.take();
    if (!taken) return undefined;
    const station: Station = {
      ...place,
      seat: taken.seat,
      thread: undefined as never,
      seen: undefined,
      calls: 0,
      retired: false,
    };
    this.#fill(station, taken.seat, taken.announced);
    return station;
  }

  #fill(station: Station, seat: Seat, announced: readonly BitmapAnnouncement[]): void {
    const { fuseFd, ring } = station;
    const setup: DataWorkerSetup = {
      ...this.#setup(seat, announced),
      fuseFd,
      ring,
    };
    const thread = startThread('./data-worker.js', setup, [seat.port], (message) =>
      this.#onMessage(seat, message),
    );
    station.seat = seat;
    station.thread = thread;
    station.seen = undefined;
    station.calls = 0;
    station.retired = false;
    thread.ended.then(
      () => this.#onEnded(station, thread),
      (error: unknown) => {
        this.#options.onCrash(error);
        this.#onEnded(station, thread);
      },
    );
  }

  #setup(seat: Seat, announced: readonly BitmapAnnouncement[]): LaneSetup {
    const { participant, port, posted } = seat;
    this.#activity.reset(participant);
    return { ...this.#options.shared, participant, port, posted, announced, activity: this.#activity.buffer };
  }

  #startLane(
    seat: Seat,
    announced: readonly BitmapAnnouncement[],
    onMessage: (message: Exclude<FromThread, { type: 'ready' }>) => void,
  ): ServiceThread {
    const thread = startThread('./lane-thread.js', this.#setup(seat, announced), [seat.port], onMessage);
    thread.ended.catch(this.#options.onCrash);
    return thread;
  }

  #onEnded(station: Station, thread: ServiceThread): void {
    if (station.thread !== thread) return;
    if (station.retired) {
      this.#stations.splice(this.#stations.indexOf(station), 1);
      this.#vacant.push(station);
    }
    this.#left--;
    if (this.#left === 0) this.#resolveEnded();
  }

  #onMessage(seat: Seat, message: Exclude<FromThread, { type: 'ready' }>): void {
    switch (message.type) {
      case 'hand-over':
        this.#lanes.accept(message);
        return;
      case 'interrupt':
        this.#interrupt(message.unique);
        return;
      case 'replaced':
        this.#stuck.delete(seat.participant);
        this.seats.giveBack(seat.participant, message.port);
        return;
      case 'log':
        this.#options.log(message.level, message.message, message.fields);
        return;
      case 'served':
      case 'notify':
        return;
      default:
        message satisfies never;
    }
  }

  #tickLater(): void {
    this.#forgetTick = this.#options.clock.after(LOOK_INTERVAL, () => {
      this.#tick();
      this.#tickLater();
    });
  }

  #tick(): void {
    const now = this.#options.clock.now();
    this.seats.drain();
    let [busy, sameCall, requests] = [0, 0, 0];
    const inService = this.#stations.filter(({ retired }) => !retired);
    for (const station of this.#stations) {
      requests += this.#served(station);
      const look = this.#look(station, now);
      if (station.retired) continue;
      if (look !== 'idle') busy++;
      if (look === 'same-call') sameCall++;
    }
    const perRequest = millis(((now - this.#lookedAt) * inService.length) / Math.max(1, requests));
    this.#lookedAt = now;
    this.#resize(inService, { busy, sameCall, perRequest });
    this.#lanes.tick(
      [...this.#stuck.values()].map(({ activity }) => activity),
      STALL,
    );
    for (const [unique, since] of this.#interrupts) this.#tryInterrupt(unique, since, now);
  }

  /** Requests since the last look. */
  #served(station: Station): number {
    const { begun, calls } = this.#activity.callsSince(station.seat.participant, station.calls);
    station.calls = calls;
    return begun;
  }

  #look(station: Station, now: Millis): 'idle' | 'new-call' | 'same-call' {
    const activity = this.#activity.look(station.seat.participant);
    if (!activity) {
      station.seen = undefined;
      return 'idle';
    }
    if (station.seen?.sequence !== activity.sequence) {
      station.seen = { sequence: activity.sequence, since: now };
      return 'new-call';
    }
    if (now - station.seen.since >= STALL) this.#replace(station, activity);
    return 'same-call';
  }

  #resize(inService: readonly Station[], look: Pick<CrewLook, 'busy' | 'sameCall' | 'perRequest'>): void {
    const workers = inService.length;
    let change = this.#size.decide({ ...look, workers, queued: look.busy === workers && this.#queued() });
    if (change === 0) return;
    if (change < 0) {
      const last = inService.at(-1)!;
      last.retired = true;
      this.#activity.retire(last.seat.participant);
    }
    for (; change > 0; change--) if (!this.#add()) break;
    const count = this.#stations.filter(({ retired }) => !retired).length;
    this.#activity.limitFlushes(count - 1);
    this.#options.log('debug', 'data workers', { workers: count });
  }

  /** Requests wait in the kernel that no worker has read. */
  #queued(): boolean {
    const found = rawPoll(this.#pollfd, 1, 0);
    if (found < 0) this.#options.log('warn', 'cannot poll /dev/fuse', { errno: lastErrno() });
    return found > 0 && ((this.#pollfd[1]! >> 16) & POLLIN) !== 0;
  }

  #add(): boolean {
    const place = this.#vacant.pop();
    const station = place && this.#staff(place);
    if (station) {
      this.#stations.push(station);
      this.#left++;
    } else if (place) this.#vacant.push(place);
    return station !== undefined;
  }

  #replace(station: Station, activity: Activity): void {
    this.#lanes.raise(activity.slot, activity.opcode);
    const taken = this.seats.take();
    if (!taken) {
      if (!this.#exhausted)
        this.#options.log('error', 'no thread is left to replace one whose call does not return', {
          stuck: this.stuck,
        });
      this.#exhausted = true;
      return;
    }
    this.#exhausted = false;
    const { seat, thread } = station;
    if (!this.#activity.replace(seat.participant, activity.sequence)) {
      this.seats.giveBack(taken.seat.participant, taken.seat.port);
      return;
    }
    this.#stuck.set(seat.participant, { activity, thread });
    this.#fill(station, taken.seat, taken.announced);
  }

  #interrupt(unique: bigint): void {
    this.#options.onInterrupt(unique);
    if (this.#interrupts.size >= INTERRUPTS_MAX)
      this.#interrupts.delete(this.#interrupts.keys().next().value!);
    const now = this.#options.clock.now();
    this.#interrupts.set(unique, now);
    this.#tryInterrupt(unique, now, now);
  }

  #tryInterrupt(unique: bigint, since: Millis, now: Millis): void {
    const ends = (caller: number): boolean => now - since >= INTERRUPT_PATIENCE || isBeingKilled(caller);
    let outcome = this.#lanes.interrupt(unique, ends);
    if (outcome === 'unknown') {
      const call = this.#callOf(unique);
      if (call) outcome = endCall(call, ends);
    }
    // A request that is known stays noted: a signal that kills may follow one that did not, and is not told of.
    if (outcome === 'ended' || (outcome === 'unknown' && now - since >= INTERRUPT_UNKNOWN_MAX))
      this.#interrupts.delete(unique);
  }

  #callOf(unique: bigint): Activity | undefined {
    for (const { activity } of this.#stuck.values()) if (activity.unique === unique) return activity;
    for (const { seat } of this.#stations) {
      const activity = this.#activity.look(seat.participant);
      if (activity?.unique === unique) return activity;
    }
    return undefined;
  }
}
