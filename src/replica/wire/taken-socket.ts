/**
 * Taking a connected socket out of Node's hands. What stands here on Node's own ground (`_handle`, `_read`) is what its
 * interface does not offer; the tests of the take-over fail where another release does it differently.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { close, duplicateCloexec, lastErrno, MSG_NOSIGNAL, send, setBlocking } from '../../fs/libc.js';
import { MigrateFsError } from '../../leaves/errors.js';
import { RECORD_KEY_BYTES } from '../../leaves/record-seal.js';

/** A socket that only its owner uses, by calls that wait, and what its records are sealed with. */
export interface StreamSocket {
  /** The owner closes it. */
  readonly fd: number;
  /** `RECORD_KEY_BYTES` for each direction; null where the connection had no TLS. */
  readonly keys: { readonly send: Uint8Array; readonly receive: Uint8Array } | null;
}

/** Of libuv, plain or below TLS. */
interface Handle {
  readonly fd: number;
  /** Bytes that the kernel has not taken, after encryption. */
  readonly writeQueueSize: number;
  readStop(): number;
}

const handleOf = (socket: Socket): Handle => {
  const handle = (socket as unknown as { readonly _handle?: Handle | null })._handle;
  assert(handle, 'a socket that is closed');
  return handle;
};

/** Leaves in the kernel what comes from now on; a stream that is only paused reads ahead, so this one cannot read. */
export const stopReading = (socket: Socket): void => {
  socket._read = () => {};
  handleOf(socket).readStop();
};

export const hasUnsent = (socket: Socket): boolean =>
  socket.writableLength > 0 || handleOf(socket).writeQueueSize > 0;

/** The keys of both directions, from the TLS session that the socket still has (RFC 8446, 7.5). */
export const exportedKeys = (socket: Socket, label: string, isClient: boolean): StreamSocket['keys'] => {
  if (!(socket instanceof TLSSocket)) return null;
  const material = socket.exportKeyingMaterial(2 * RECORD_KEY_BYTES, label, Buffer.alloc(0));
  const fromClient = material.subarray(0, RECORD_KEY_BYTES);
  const fromServer = material.subarray(RECORD_KEY_BYTES);
  return isClient ? { send: fromClient, receive: fromServer } : { send: fromServer, receive: fromClient };
};

const descriptor = (result: number): number => {
  if (result >= 0) return result;
  throw new MigrateFsError(
    'RESOURCE_EXHAUSTED',
    `cannot duplicate the descriptor of a stream (errno ${-result})`,
  );
};

/**
 * Closes the socket and keeps the connection: destroying sends neither a close_notify nor a FIN while another
 * descriptor holds it. The one returned does not wait yet; that flag is common to both.
 */
export const detach = async (socket: Socket): Promise<number> => {
  const fd = descriptor(duplicateCloexec(handleOf(socket).fd));
  socket.destroy();
  await once(socket, 'close');
  return fd;
};

/** For the client: from here on the server may send. Takes `fd`, returns it waiting. */
export const tellSwitched = (fd: number, signal: AbortSignal): number => {
  setBlocking(fd, true);
  if (!signal.aborted && send(fd, Buffer.alloc(1), 1, MSG_NOSIGNAL) === 1) return fd;
  const errno = lastErrno();
  close(fd);
  signal.throwIfAborted();
  throw new MigrateFsError('UNAVAILABLE', `the peer of a stream is gone (errno ${errno})`);
};

/**
 * For the server: resolves once the client has taken over too. Until then Node may read there, in its own portions,
 * what is sent from here. Takes `fd`, returns a new number for it, waiting.
 */
export const peerSwitched = (fd: number, signal: AbortSignal): Promise<number> =>
  new Promise((resolve, reject) => {
    let taken: number | undefined;
    let failure: unknown = new MigrateFsError('UNAVAILABLE', 'the peer of a stream is gone');
    const onAbort = (): void => {
      failure = signal.reason;
      socket.destroy();
    };
    /** Reads the one byte and nothing behind it. */
    const onread = {
      buffer: Buffer.alloc(1),
      callback: (): boolean => {
        taken = duplicateCloexec(fd);
        socket.destroy();
        return false;
      },
    };
    const socket = new Socket({ fd, readable: true, onread } as ConstructorParameters<typeof Socket>[0]);
    socket.on('error', () => {});
    socket.on('end', () => socket.destroy());
    socket.once('close', () => {
      signal.removeEventListener('abort', onAbort);
      if (taken === undefined) return reject(failure);
      try {
        setBlocking(descriptor(taken), true);
        resolve(taken);
      } catch (error) {
        reject(error);
      }
    });
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
  });
