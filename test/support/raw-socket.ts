/** Sockets as descriptors, used without waiting so that both ends can be in one thread. */
import { readdirSync, readlinkSync } from 'node:fs';
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import { lastErrno, MSG_DONTWAIT, MSG_NOSIGNAL, recv, send } from '../../src/fs/libc.js';

const EAGAIN = 11;
const LIMIT_MS = 10_000;

/** Sends all of `data`; rejects with the errno. */
export const sendAll = async (fd: number, data: Uint8Array): Promise<void> => {
  for (let at = 0; at < data.length; ) {
    const sent = send(fd, data.subarray(at), data.length - at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) at += sent;
    else if (lastErrno() === EAGAIN) await sleep(1);
    else throw new Error(`send: errno ${lastErrno()}`);
  }
};

/** What has come and what comes until `count` bytes are there, the peer has ended, or time is up. */
export const receive = async (
  fd: number,
  count = Number.POSITIVE_INFINITY,
  milliseconds = LIMIT_MS,
): Promise<Buffer> => {
  const pieces: Buffer[] = [];
  const deadline = performance.now() + milliseconds;
  for (let length = 0; length < count; ) {
    const room = Buffer.alloc(Math.min(count - length, 65_536));
    const got = recv(fd, room, room.length, MSG_DONTWAIT);
    if (got === 0) break;
    if (got > 0) {
      pieces.push(room.subarray(0, got));
      length += got;
    } else if (lastErrno() !== EAGAIN) throw new Error(`recv: errno ${lastErrno()}`);
    else if (performance.now() > deadline) break;
    else await immediate();
  }
  return Buffer.concat(pieces);
};

/** How many sockets this process has open. */
export const openSockets = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
