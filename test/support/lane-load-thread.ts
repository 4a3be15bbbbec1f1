/** Entry of a thread that uses a `MirrorLane` or a `SharedLock` together with others, as hard as it can. */
import { workerData } from 'node:worker_threads';
import { MirrorLane } from '../../src/fs/mirror-lane.js';
import { SharedLock } from '../../src/fs/shared-lock.js';

export interface LaneLoad {
  readonly kind: 'lane';
  readonly lane: SharedArrayBuffer;
  readonly participant: number;
  readonly writes: number;
  /** By block: how many threads are making a write to it now. */
  readonly making: SharedArrayBuffer;
  /** Blocks that two threads were making a write to at once. */
  readonly clashes: SharedArrayBuffer;
  /** By the number of the write: how often it was answered. */
  readonly answers: SharedArrayBuffer;
}

export interface LockLoad {
  readonly kind: 'lock';
  /** The lock, then the count that it guards. */
  readonly words: SharedArrayBuffer;
  readonly rounds: number;
}

const BLOCK = 4096;
const SLOT = 3;

const writeToLane = ({ lane: buffer, participant, writes, ...shared }: LaneLoad): void => {
  const lane = new MirrorLane(buffer);
  const making = new Int32Array(shared.making);
  const answers = new Int32Array(shared.answers);
  const clashes = new Int32Array(shared.clashes);
  let state = participant + 1;
  const below = (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (state >>> 8) % limit;
  };
  for (let i = 0; i < writes; ) {
    const number = participant * writes + i;
    const length = 1 + below(3);
    const first = below(making.length - length);
    lane.lock.acquire();
    const entry = lane.begin(participant, SLOT, first * BLOCK, length * BLOCK, 0, number, 0);
    lane.lock.release();
    if (entry < 0) continue;
    for (let block = first; block < first + length; block++)
      if (Atomics.add(making, block, 1) !== 0) Atomics.add(clashes, 0, 1);
    for (let block = first; block < first + length; block++) Atomics.sub(making, block, 1);
    if (lane.made(participant, entry, length * BLOCK, { mark: () => {} })) Atomics.add(answers, number, 1);
    i++;
  }
};

const countUnderLock = ({ words, rounds }: LockLoad): void => {
  const all = new Int32Array(words);
  const lock = new SharedLock(all, 0);
  for (let i = 0; i < rounds; i++) {
    lock.acquire();
    // Read and written apart: two threads in here at once lose a count.
    const seen = all[1]!;
    for (let spin = 0; spin < i % 50; spin++) Atomics.load(all, 2);
    all[1] = seen + 1;
    lock.release();
  }
};

const load = workerData as LaneLoad | LockLoad;
if (load.kind === 'lane') writeToLane(load);
else countUnderLock(load);
