/**
 * A lane: performs data requests that no data worker should wait for, one at a time. Given by the main thread, which
 * keeps the queue, so that what waits behind a call that does not return can still be interrupted.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { dataRequest } from './data-operations.js';
import { DataParticipant } from './data-participant.js';
import type { FromThread, HandedOver, LaneSetup } from './thread-messages.js';

const participant = new DataParticipant(workerData as LaneSetup);
const tell = (message: FromThread): void => parentPort!.postMessage(message);

parentPort!.on('message', (given: HandedOver | null) => {
  if (given === null) {
    const { port } = participant;
    parentPort!.postMessage({ type: 'replaced', port } satisfies FromThread, [port]);
    parentPort!.close();
    return;
  }
  participant.takeAnnouncements();
  participant.serve(dataRequest(given.request, given.fuseFd), given.slot);
  tell({ type: 'served' });
});
tell({ type: 'ready' });
