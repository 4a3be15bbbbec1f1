/**
 * A process that serves one kernel mount, without the rest of the daemon:
 * `node mount-process.js IMAGE_DIR MOUNTPOINT [WORKERS]`. Prints `ready`, or the error and exits with 1. On a line
 * `unmount` or `unmount lazy` on stdin it unmounts and prints `unmounted` or the error. `route NAME` and `idle NAME`
 * pin an image and switch its mode, with a stand-in for the replica thread that performs what is routed.
 */
import { createInterface } from 'node:readline';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { ROUTED } from '../../src/fs/image-io.js';
import type { ImageStore, PinnedImage } from '../../src/fs/image-store.js';
import { GraceCounters, ImageMode, ImageTable } from '../../src/fs/image-table.js';
import { mountKernel } from '../../src/fs/kernel/mount-kernel.js';
import { replyToKernel } from '../../src/fs/kernel/reply.js';
import { close } from '../../src/fs/libc.js';
import type { MountedFileSystem } from '../../src/fs/mounted-file-system.js';
import type { ParticipantEnd, RoutedRequest, ToParticipant } from '../../src/fs/participant.js';
import { plainError } from '../../src/leaves/errors.js';
import { remotePort } from '../../src/leaves/port-rpc.js';

const [imageDir = '', mountpoint = '', workers = '2', passthrough = 'auto', openFilesMax] =
  process.argv.slice(2);
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const calls = createBackingCalls();

const wakeUp = ({ wake }: ParticipantEnd): void => {
  if (!wake) return;
  const word = new Int32Array(wake);
  Atomics.add(word, 0, 1);
  Atomics.notify(word, 0);
};

const perform = (request: RoutedRequest): number => {
  switch (request.op) {
    case 'write':
      return calls.pwrite(request.fd, request.payload, request.payload.length, request.offset, request.whole);
    case 'truncate':
      return calls.ftruncate(request.fd, request.size);
    case 'fallocate':
      return calls.fallocate(request.fd, request.mode, request.offset, request.length);
    case 'fsync':
      return calls.fsync(request.fd, request.datasync);
    default:
      request satisfies never;
      return ROUTED;
  }
};

/** Performs every routed request at once and counts them. */
const standInForReplica = (mounted: MountedFileSystem): { readonly counts: Record<string, number> } => {
  const counts: Record<string, number> = {};
  for (const end of mounted.ends.participants) {
    end.port.on('message', (request: RoutedRequest) => {
      counts[request.op] = (counts[request.op] ?? 0) + 1;
      const result = perform(request);
      if (request.op === 'write' && request.ownFd) close(request.fd);
      if (request.reply.kind === 'kernel')
        return replyToKernel(request.reply.fuseFd, request.reply.unique, result, request.op === 'write');
      end.port.postMessage({ type: 'result', id: request.reply.id, result } satisfies ToParticipant);
      wakeUp(end);
    });
    end.port.unref();
  }
  return { counts };
};

const run = async (): Promise<void> => {
  const mounted = await mountKernel({
    imageDir,
    mountpoint,
    workers: Number(workers),
    workersMax: Number(workers),
    passthrough: passthrough === 'auto',
    ...(openFilesMax && { openFilesMax: Number(openFilesMax) }),
    log: (level, message, fields) =>
      void process.stderr.write(`${level} ${message} ${JSON.stringify(fields ?? {})}\n`),
  });
  const replica = standInForReplica(mounted);
  const table = new ImageTable(mounted.ends.images);
  const grace = new GraceCounters(mounted.ends.grace);
  const { store } = mounted.ends;
  const images = remotePort<ImageStore>(store.port, () => wakeUp(store));
  store.port.unref();
  const pins = new Map<string, PinnedImage>();
  const commands: Record<string, (argument: string) => Promise<string>> = {
    unmount: async (how) => {
      await mounted.unmount({ lazy: how === 'lazy' });
      return 'unmounted';
    },
    route: async (name) => {
      const pinned = await images.pin(name);
      pins.set(name, pinned);
      table.setMode(pinned.slot, ImageMode.routed);
      await grace.elapsed([pinned.slot], () => new Promise((resolve) => setImmediate(resolve)));
      return 'routed';
    },
    fence: async (name) => {
      table.setMode(pins.get(name)!.slot, ImageMode.fenced);
      return 'fenced';
    },
    idle: async (name) => {
      const { slot } = pins.get(name)!;
      table.setMode(slot, ImageMode.idle);
      await images.invalidate(slot);
      await images.release(slot, false);
      return 'idle';
    },
    counts: async () => JSON.stringify(replica.counts),
    crash: async () => {
      // Something no participant expects: the owner of the namespace fails on it.
      mounted.ends.participants.at(-1)!.port.postMessage(null);
      wakeUp(mounted.ends.participants.at(-1)!);
      return 'crashed';
    },
  };
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    const [command = '', argument = ''] = line.split(' ');
    commands[command]!(argument).then(say, (error: unknown) =>
      say(`error ${plainError(error).code} ${plainError(error).message}`),
    );
  });
  void mounted.closed.then(() => lines.close());
  say('ready');
  await mounted.closed;
  for (const { port } of mounted.ends.participants) port.close();
  store.port.close();
  say('closed');
};

run().catch((error: unknown) => {
  const { code, message } = plainError(error);
  say(`error ${code} ${message}`);
  process.exitCode = 1;
});
