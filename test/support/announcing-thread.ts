/** Announces bitmaps to the participants of a mount as the replica thread does, to the observer first; each when it is told to. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';

const { ports, count, wanted, done } = workerData as {
  readonly ports: readonly MessagePort[];
  readonly count: number;
  /** How many are to be made by now, and how many are. */
  readonly wanted: Int32Array;
  readonly done: Int32Array;
};

for (let slot = 0; slot < count; slot++) {
  Atomics.wait(wanted, 0, slot);
  const bitmap = new SharedArrayBuffer(8);
  for (const port of ports) port.postMessage({ type: 'bitmap', slot, epoch: 1, blockSize: 4096, bitmap });
  Atomics.store(done, 0, slot + 1);
  Atomics.notify(done, 0);
}
parentPort!.close();
