import { Errno } from './errno.js';
import { lastErrno, MSG_DONTWAIT, MSG_NOSIGNAL, POLLOUT, rawPoll, send } from './libc.js';

/** Waits as long as it takes. */
export const FOR_EVER = -1;

/**
 * Sends all of `record`; waits at most `waitMs` each time that the socket takes nothing. False: the connection is broken,
 * or has to be, as a part may have left. Whoever shuts the socket down ends the wait.
 */
export const sendWhole = (fd: number, record: Uint8Array, waitMs: number): boolean => {
  for (let sent = 0; sent < record.length; ) {
    const rest = sent === 0 ? record : record.subarray(sent);
    const count = send(fd, rest, rest.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      sent += count;
      continue;
    }
    const errno = lastErrno();
    if (errno === Errno.EINTR) continue;
    if (errno !== Errno.EAGAIN || rawPoll(Int32Array.of(fd, POLLOUT), 1, waitMs) === 0) return false;
  }
  return true;
};
