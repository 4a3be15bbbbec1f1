/** Entry of the thread that hosts both sides of replication. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { workerData } from 'node:worker_threads';
import { createBackingCalls } from '../fs/backing-calls.js';
import { systemClock } from '../leaves/clock.js';
import { plainError } from '../leaves/errors.js';
import { servePort } from '../leaves/port-rpc.js';
import { ReplicaHost } from './replica-host.js';
import type { ReplicaThreadData, ReplicaThreadEvent, ReplicaThreadMethods } from './thread-messages.js';

const { ends, data, blockSize, netLimit, peerTimeout, tls, control, events } =
  workerData as ReplicaThreadData;
const post = (event: ReplicaThreadEvent): void => events.postMessage(event);

const ID_BYTES = 6;
const TOKEN_BYTES = 16;
const UINT32_RANGE = 2 ** 32;

try {
  const host = await ReplicaHost.open({
    ends,
    data,
    blockSize,
    netLimit,
    peerTimeout,
    tls,
    calls: createBackingCalls(),
    clock: systemClock,
    random: () => randomBytes(4).readUInt32LE() / UINT32_RANGE,
    newId: () => randomBytes(ID_BYTES).toString('hex'),
    newToken: () => randomBytes(TOKEN_BYTES),
    hostname: hostname(),
    log: (level, message, fields = {}) => post({ type: 'log', level, message, fields }),
  });
  host.watch((snapshot) => post({ type: 'snapshot', snapshot }));
  servePort<ReplicaThreadMethods>(control, host);
  post({ type: 'listening', address: host.dataAddress });
} catch (error) {
  post({ type: 'failed', error: plainError(error) });
}
