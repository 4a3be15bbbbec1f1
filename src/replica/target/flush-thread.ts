/**
 * Entry of the thread that flushes the replicas of one stream, so that what is received meanwhile does not wait for a disk.
 * Sleeps on shared memory, so it has no event loop to speak of.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Errno } from '../../fs/errno.js';
import { close, fdatasync, openAgain, SHUT_RDWR, shutdown } from '../../fs/libc.js';
import { plainError } from '../../leaves/errors.js';
import { RECORD_KIND } from '../../leaves/stream-record.js';
import type { FromFlushThread, TargetStreamSetup } from '../stream-messages.js';
import { backingError, errnoError } from './backing-file.js';
import { StreamReplies } from './stream-replies.js';
import { WantedFlushes } from './wanted-flushes.js';

const { fd, sendKey, images, replies: repliesBuffer, flushes } = workerData as TargetStreamSetup;
const wanted = new WantedFlushes(flushes);
const replies = new StreamReplies(repliesBuffer, fd, sendKey);
/** Open files of its own: what a flush of one is told of a write that failed, the flushes of another are told as well. */
const files = images.map((image) => openAgain(image.fd));
const done = images.map(() => 0);

/** 0, or -errno. */
const flush = (file: number): number => {
  if (file < 0) return file;
  for (;;) {
    const result = fdatasync(file);
    if (result !== -Errno.EINTR) return result;
  }
};

/** False: nothing was to be done. */
const flushWanted = (): boolean => {
  let any = false;
  images.forEach(({ name }, image) => {
    const sequence = wanted.wanted(image);
    if (sequence <= done[image]! || wanted.ended) return;
    any = true;
    done[image] = sequence;
    const result = flush(files[image]!);
    if (result >= 0) {
      replies.send(RECORD_KIND.synced, image, sequence);
      return;
    }
    const error = plainError(backingError(`cannot sync ${name}`, errnoError(result)));
    parentPort!.postMessage({ type: 'failed', error } satisfies FromFlushThread);
    shutdown(fd, SHUT_RDWR);
  });
  return any;
};

while (!wanted.ended) {
  const seen = wanted.posts;
  if (!flushWanted()) wanted.wait(seen);
}
for (const file of files) if (file >= 0) close(file);
