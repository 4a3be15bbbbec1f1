import type { BackingCalls } from '../../fs/backing-calls.js';
import { Errno } from '../../fs/errno.js';
import type { RoutedRequest } from '../../fs/participant.js';

/** Does what a participant would have done itself: the change, on the handle's descriptor. The result is its answer. */
export const performRouted = (calls: BackingCalls, request: RoutedRequest): number => {
  if (request.interrupted) return -Errno.EINTR;
  request.begun = true;
  switch (request.op) {
    case 'write':
      return calls.pwrite(request.fd, request.payload, request.payload.length, request.offset, request.whole);
    case 'fallocate':
      return calls.fallocate(request.fd, request.mode, request.offset, request.length);
    case 'truncate':
      return calls.ftruncate(request.fd, request.size);
    case 'fsync':
      return calls.fsync(request.fd, request.datasync);
    default:
      return request satisfies never;
  }
};
