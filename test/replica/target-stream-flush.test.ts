/** What the target's end of a stream makes of syncs: flushed behind what came before, while what comes behind goes on. */
import { openSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { close, lastErrno, MSG_DONTWAIT, recv } from '../../src/fs/libc.js';
import { FOR_EVER, sendWhole } from '../../src/fs/stream-socket.js';
import type { PlainError } from '../../src/leaves/errors.js';
import { RecordReader } from '../../src/leaves/record-reader.js';
import { RECORD_KEY_BYTES, RecordSeal } from '../../src/leaves/record-seal.js';
import {
  RECORD_HEAD_BYTES,
  RECORD_KIND,
  RecordHead,
  type RecordKind,
} from '../../src/leaves/stream-record.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import { BackingFile } from '../../src/replica/target/backing-file.js';
import { StreamReception } from '../../src/replica/target/stream-reception.js';
import type { TargetImage } from '../../src/replica/target/target-image.js';
import { scratchDir } from '../support/scratch.js';
import { socketPair } from '../support/socket-pair.js';
import { StuckFile } from '../support/stuck-file.js';
import { waitFor } from '../support/wait-for.js';

const BLOCK = 4 * KiB;
const KEY = Uint8Array.from({ length: RECORD_KEY_BYTES }, (_, i) => i + 1);
const OTHER_KEY = KEY.toReversed();

/** The source's end, sealed, and the reception of what it sends. */
class Stream {
  readonly reception: StreamReception;
  readonly failures: PlainError[] = [];
  /** Why it was closed, once it is. */
  closed: string | undefined;
  /** What came back: kind, image, sequence number. */
  readonly replies: [RecordKind, number, number][] = [];
  readonly #fd: number;
  readonly #seal = new RecordSeal(KEY);
  readonly #reader = new RecordReader(OTHER_KEY);
  #sent = 0;

  private constructor(fd: number, far: number, files: readonly number[]) {
    this.#fd = fd;
    const images = files.map((file, i) => ({ name: `image ${i}`, file: { fd: file }, sizeIs: () => {} }));
    this.reception = new StreamReception(
      { fd: far, sendKey: OTHER_KEY, receiveKey: KEY },
      images as unknown as TargetImage[],
      {
        failed: (error) => this.failures.push(error),
        closed: (reason) => {
          this.closed = reason;
        },
      },
    );
  }

  static async open(t: Test, files: readonly number[]): Promise<Stream> {
    const [fd, far] = await socketPair();
    const stream = new Stream(fd, far, files);
    t.teardown(async () => {
      await stream.reception.close();
      close(fd);
    });
    return stream;
  }

  write(image: number, block: number): void {
    this.#send(RECORD_KIND.mirror, image, block * BLOCK, BLOCK);
  }

  /** One byte. */
  writeAt(image: number, offset: number): void {
    this.#send(RECORD_KIND.data, image, offset, 1);
  }

  sync(image: number): void {
    this.#send(RECORD_KIND.sync, image, 0, 0);
  }

  /** Resolves once this has come back. */
  async hears(...reply: [RecordKind, number, number]): Promise<void> {
    await waitFor(() => {
      this.#receive();
      return this.replies.some((each) => each.join() === reply.join());
    }, `the reply ${reply}`);
  }

  heard(kind: RecordKind): boolean {
    this.#receive();
    return this.replies.some(([each]) => each === kind);
  }

  #send(kind: RecordKind, image: number, offset: number, length: number): void {
    const record = new Uint8Array(RECORD_HEAD_BYTES + length);
    const whole = new RecordHead(record.buffer, 0).put(kind, image, offset, length, this.#sent + 1);
    if (!sendWhole(this.#fd, this.#seal.seal(record.subarray(0, whole), this.#sent), FOR_EVER))
      throw new Error(`cannot send: errno ${lastErrno()}`);
    this.#sent++;
  }

  #receive(): void {
    for (;;) {
      const space = this.#reader.space();
      const count = recv(this.#fd, space, space.length, MSG_DONTWAIT);
      if (count <= 0) return;
      this.#reader.received(count);
      for (let record = this.#reader.next(); record; record = this.#reader.next())
        this.replies.push([record.kind, record.image, record.seq]);
    }
  }
}

const { ack, synced } = RECORD_KIND;

/** A file that stops answering, and its descriptor. */
const stuckFile = async (t: Test): Promise<{ readonly stuck: StuckFile; readonly fd: number }> => {
  const path = join(scratchDir(t, 'stuck'), 'image');
  const stuck = await StuckFile.start(t, path, MiB);
  const fd = openSync(path, 'r+');
  t.teardown(async () => {
    await stuck.release();
    close(fd);
  });
  return { stuck, fd };
};

const plainFile = (t: Test): number => {
  const fd = openSync(join(scratchDir(t, 'image'), 'image'), 'w+');
  t.teardown(() => close(fd));
  return fd;
};

t.test('a record that ends where no offset is exact any more is refused, on any file system', async (t) => {
  const stream = await Stream.open(t, [plainFile(t)]);
  stream.writeAt(0, Number.MAX_SAFE_INTEGER);
  await waitFor(() => stream.closed !== undefined, 'it is closed');
  t.match(stream.closed, /extent out of range/);
  t.same(stream.failures, [], 'the fault is not the image’s');
});

t.test('a sync is done behind the writes before it, which are acknowledged first', async (t) => {
  const { stuck, fd } = await stuckFile(t);
  const stream = await Stream.open(t, [fd]);
  await stuck.hold();
  stream.write(0, 1);
  stream.sync(0);
  await stuck.held(1);
  await stuck.release(); // the write was alone there: its flush had not begun
  await stream.hears(synced, 0, 2);
  t.same(stream.replies, [
    [ack, 0, 1],
    [synced, 0, 2],
  ]);
});

t.test('while a flush does not return, writes of another image go on; then both are told of', async (t) => {
  const { stuck, fd } = await stuckFile(t);
  const stream = await Stream.open(t, [fd, plainFile(t)]);
  await stuck.hold();
  stream.sync(0);
  await stuck.held(1);
  stream.write(1, 0);
  await stream.hears(ack, 0, 2);
  t.notOk(stream.heard(synced), 'the flush has not returned');
  stream.sync(1);
  stream.sync(0);
  stream.sync(0);
  stream.write(1, 1);
  await stream.hears(ack, 0, 6);
  t.notOk(stream.heard(synced));
  await stuck.release();
  await stream.hears(synced, 1, 3);
  await stream.hears(synced, 0, 5);
  const flushes = stream.replies.filter(([kind, image]) => kind === synced && image === 0);
  t.same(flushes[0], [synced, 0, 1], 'no later one is covered by what had begun before it came');
});

t.test(
  'a flush that fails ends the stream, says why, and hides nothing from those of the replica',
  async (t) => {
    const { stuck, fd } = await stuckFile(t);
    const replica = new BackingFile(fd, createBackingCalls());
    const stream = await Stream.open(t, [fd]);
    stream.sync(0);
    await stream.hears(synced, 0, 1);
    await stuck.lose();
    stream.sync(0);
    await waitFor(() => stream.failures.length > 0 && stream.closed !== undefined, 'it fails and closes');
    t.match(stream.failures, [{ code: 'INTERNAL', message: /cannot sync image 0 on the target: EIO/ }]);
    t.strictSame(stream.replies, [[synced, 0, 1]]);
    await t.rejects(replica.datasync(), { code: 'EIO' });
  },
);

t.test('a sync of an image that there is not is unacceptable', async (t) => {
  const stream = await Stream.open(t, [plainFile(t)]);
  stream.sync(1);
  await waitFor(() => stream.closed !== undefined, 'it is closed');
  t.match(stream.closed, /image 1 of 1/);
});

t.test('a stream that is closed ends although a flush does not return', async (t) => {
  const { stuck, fd } = await stuckFile(t);
  const stream = await Stream.open(t, [fd]);
  await stuck.hold();
  stream.sync(0);
  await stuck.held(1);
  await stream.reception.close();
  await stuck.release();
  t.same(stream.failures, []);
});
