import type { MessagePort } from 'node:worker_threads';
import { receiveMessageOnPort } from 'node:worker_threads';
import type Fuse from 'fuse-native';
import { Errno } from '../errno.js';
import { type ImageIo, ROUTED } from '../image-io.js';
import { NO_SLOT } from '../image-registry.js';
import { addressNumberOf, fsync, O_WRONLY, pread, pwrite, readWhole } from '../libc.js';
import type { RoutedRequest, ToParticipant } from '../participant.js';
import type { OpenFile, OpenFiles } from './open-files.js';

type Answer = (result: number) => void;
/** `Omit` keeps only what all members of a union share; this keeps each. */
type Unsent<T> = T extends unknown ? Omit<T, 'slot' | 'fd' | 'reply'> : never;

/** Requests handed to the replica thread, and the kernel's callers that wait for them. */
export class RoutedRequests {
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, Answer>();
  readonly #announce: ImageIo['announce'];
  #next = 1;

  constructor(port: MessagePort, announce: ImageIo['announce']) {
    this.#port = port;
    this.#announce = announce;
    port.on('message', (message: ToParticipant) => this.#receive(message));
  }

  /** Takes what has arrived at once, without waiting for the event loop. */
  drain(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.#port);
      if (!received) return;
      this.#receive(received.message as ToParticipant);
    }
  }

  /** `transfer`: memory that belongs to the request alone. */
  send(
    { slot, fd }: OpenFile,
    request: Unsent<RoutedRequest>,
    answer: Answer,
    transfer: ArrayBuffer[] = [],
  ): void {
    const id = this.#next++;
    this.#waiting.set(id, answer);
    this.#port.postMessage({ ...request, slot, fd, reply: { kind: 'port', id } }, transfer);
  }

  #receive(message: ToParticipant): void {
    switch (message.type) {
      case 'bitmap':
        this.#announce(message);
        break;
      case 'result': {
        const answer = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        answer?.(message.result);
        break;
      }
      default:
        message satisfies never;
    }
  }
}

/** The kernel takes a short answer for the end of the file; pread(2) is short before what cannot be read, too. */
const read = (fd: number, into: Buffer, length: number, offset: number): number => {
  const count = pread(fd, into, length, offset);
  if (count <= 0 || count === length) return count;
  const rest = readWhole(fd, addressNumberOf(into) + count, length - count, offset + count);
  return rest < 0 ? rest : count + rest;
};

/** Opening, reading and changing files. `directIo`, `writesBack`: of the request being served (see RequestState). */
export const dataOperations = (
  files: OpenFiles,
  io: ImageIo,
  routed: RoutedRequests,
  directIo: () => boolean,
  writesBack: () => boolean,
): Fuse.Operations => {
  const truncate = (file: OpenFile, size: number, answer: Answer): void => {
    const result = file.slot === NO_SLOT ? -Errno.EINVAL : io.truncate(file.slot, file.fd, size);
    if (result === ROUTED) routed.send(file, { op: 'truncate', size }, answer);
    else answer(result);
  };
  const write = (file: OpenFile, data: Buffer, length: number, offset: number, answer: Answer): void => {
    const whole = writesBack();
    const result =
      file.slot === NO_SLOT
        ? pwrite(file.fd, data, length, offset)
        : io.write(file.slot, file.fd, data, length, offset, undefined, whole);
    if (result !== ROUTED) {
      answer(result);
      return;
    }
    // libfuse's memory is taken back with the answer: the request needs its own.
    const payload = new Uint8Array(length);
    payload.set(data.subarray(0, length));
    routed.send(file, { op: 'write', offset, payload, whole }, answer, [payload.buffer]);
  };
  const sync = (file: OpenFile, datasync: boolean, answer: Answer): void => {
    const result = file.slot === NO_SLOT ? fsync(file.fd) : io.fsync(file.slot, file.fd, datasync);
    if (result === ROUTED) routed.send(file, { op: 'fsync', datasync }, answer);
    else answer(result);
  };
  const withFile = (handle: number, answer: Answer, perform: (file: OpenFile) => void): void => {
    const file = files.find(handle);
    if (file) perform(file);
    else answer(-Errno.EBADF);
  };
  const opened = (handle: number, answer: (result: number, handle?: number) => void): void =>
    handle < 0 ? answer(handle) : answer(0, handle);
  return {
    open: (path: string, flags: number, answer: (result: number, handle?: number) => void) =>
      opened(files.open(path, flags, directIo), answer),
    create: (path: string, mode: number, answer: (result: number, handle?: number) => void) =>
      opened(files.create(path, mode), answer),
    release: (_path: string, handle: number, answer: Answer) => answer(files.close(handle)),
    read: (_path: string, handle: number, into: Buffer, length: number, offset: number, answer: Answer) =>
      withFile(handle, answer, ({ fd }) => answer(read(fd, into, length, offset))),
    write: (_path: string, handle: number, data: Buffer, length: number, offset: number, answer: Answer) =>
      withFile(handle, answer, (file) => write(file, data, length, offset, answer)),
    fsync: (_path: string, datasync: number, handle: number, answer: Answer) =>
      withFile(handle, answer, (file) => sync(file, datasync !== 0, answer)),
    ftruncate: (_path: string, handle: number, size: number, answer: Answer) =>
      withFile(handle, answer, (file) => truncate(file, size, answer)),
    truncate: (path: string, size: number, answer: Answer) => {
      const file = files.openUnlisted(path, O_WRONLY);
      if (typeof file === 'number') {
        answer(file);
        return;
      }
      truncate(file, size, (result) => {
        files.closeUnlisted(file);
        answer(result);
      });
    },
  };
};
