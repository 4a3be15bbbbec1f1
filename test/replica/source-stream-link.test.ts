/** Batches of runs over a stream: what arrives, and what is said of it (G2). */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as immediate } from 'node:timers/promises';
import t from 'tap';
import { Errno } from '../../src/fs/errno.js';
import { close, lastErrno, MSG_DONTWAIT, recv, SHUT_RDWR, shutdown } from '../../src/fs/libc.js';
import { RecordReader } from '../../src/leaves/record-reader.js';
import { RECORD_KEY_BYTES, RecordSeal } from '../../src/leaves/record-seal.js';
import { RECORD_HEAD_BYTES, RECORD_KIND, RecordHead } from '../../src/leaves/stream-record.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import type { BulkBatch } from '../../src/replica/source/ports.js';
import { StreamLink } from '../../src/replica/source/stream-link.js';
import { Random } from '../support/random.js';
import { sendAll } from '../support/raw-socket.js';
import { scratchDir } from '../support/scratch.js';
import { socketPair } from '../support/socket-pair.js';
import { waitFor } from '../support/wait-for.js';

type Test = Parameters<typeof scratchDir>[0];

const BLOCK = 4 * KiB;
const SEED = 7;

/** The target's end of a stream, which applies what comes to a file in memory. */
class Target {
  readonly content: Buffer;
  /** Of the last record that was applied. */
  sequence = 0;
  payloadBytes = 0;
  /** Where each record ended in the file. */
  readonly ends: { readonly offset: number; readonly sequence: number }[] = [];
  readonly #fd: number;
  readonly #reader: RecordReader;
  readonly #seal: RecordSeal;
  #acks = 0;

  constructor(fd: number, key: Uint8Array | null, size: number) {
    this.#fd = fd;
    this.#reader = new RecordReader(key);
    this.#seal = new RecordSeal(key);
    this.content = Buffer.alloc(size, 0xee);
  }

  /** Applies what comes, up to a record that says the size. */
  async applyToSize(): Promise<void> {
    for (;;) {
      const record = this.#reader.next();
      if (!record) {
        await this.#receive();
        continue;
      }
      if (record.seq !== ++this.sequence) throw new Error(`record ${record.seq} is number ${this.sequence}`);
      const { kind, offset, length, payload } = record;
      if (kind === RECORD_KIND.resize) return;
      if (kind === RECORD_KIND.data) this.content.set(payload, offset);
      else this.content.fill(0, offset, offset + length);
      this.payloadBytes += payload.length;
      this.ends.push({ offset: offset + length, sequence: record.seq });
    }
  }

  async #receive(): Promise<void> {
    const space = this.#reader.space();
    for (;;) {
      const count = recv(this.#fd, space, space.length, MSG_DONTWAIT);
      if (count > 0) return this.#reader.received(count);
      if (count === 0 || lastErrno() !== Errno.EAGAIN) throw new Error('the stream has ended');
      await immediate();
    }
  }

  async acknowledge(sequence: number): Promise<void> {
    const record = new Uint8Array(RECORD_HEAD_BYTES);
    new RecordHead(record.buffer, 0).put(RECORD_KIND.ack, 0, 0, 0, sequence);
    await sendAll(this.#fd, this.#seal.seal(record, this.#acks++));
  }

  hangUp(): void {
    shutdown(this.#fd, SHUT_RDWR);
  }
}

const world = async (t: Test, size: number, key: Uint8Array | null = null) => {
  const [fd, peer] = await socketPair();
  const link = await StreamLink.open({ fd, sendKey: key, receiveKey: key });
  t.teardown(async () => {
    link.close();
    await link.ended;
    close(peer);
  });
  return { link, target: new Target(peer, key, size) };
};

/** An image of data, zeroes that are allocated and holes, which ends within a block; runs of many sizes that cover it. */
const mixedImage = (t: Test, name: string): { batch: BulkBatch; content: Buffer } => {
  const random = new Random(SEED);
  const size = 3 * MiB + 1001;
  const runs: number[] = [];
  for (let at = 0; at < size; at += runs.at(-1)!)
    runs.push(at, BLOCK * (random.chance(3) ? 1 + random.below(128) : 1 + random.below(3)));
  const content = Buffer.alloc(runs.at(-2)! + runs.at(-1)!);
  const image = openSync(join(scratchDir(t), name), 'w+');
  t.teardown(() => closeSync(image));
  ftruncateSync(image, size);
  for (let at = 0; at < size; at += BLOCK) {
    const block = content.subarray(at, Math.min(at + BLOCK, size));
    const kind = random.below(3);
    if (kind === 0) random.fill(block);
    if (kind < 2) writeSync(image, block, 0, block.length, at);
  }
  return { batch: { image: 0, fd: image, runs: Float64Array.from(runs), piece: 64 * KiB }, content };
};

/** Copies, and counts what is said of runs. */
const copy = (link: StreamLink, batch: BulkBatch) => {
  const said = { acked: 0, lost: 0, bytes: 0 };
  const copying = link.copy(batch, (outcome, runs, bytes) => {
    said[outcome] += runs;
    said.bytes += bytes;
  });
  return { said, copying };
};

const KEY = Uint8Array.from({ length: RECORD_KEY_BYTES }, (_, i) => i);

for (const [name, key] of [
  ['plain', null],
  ['sealed', KEY],
] as const)
  t.test(`${name}: runs of every size arrive as they are`, async (t) => {
    const { batch, content } = mixedImage(t, name);
    const { link, target } = await world(t, content.length, key);
    const half = 2 * Math.floor(batch.runs.length / 4);
    const batches = [batch.runs.subarray(0, half), batch.runs.subarray(half)];
    const copies = batches.map((runs) => copy(link, { ...batch, runs }));
    link.resize(0, content.length, () => {});
    await target.applyToSize();
    t.ok(target.content.equals(content), 'the same on the other side');
    const sent = await Promise.all(copies.map(({ copying }) => copying));
    t.equal(sent[0]! + sent[1]!, target.payloadBytes, 'as many bytes as are said');
    for (const { said } of copies)
      t.same(said, { acked: 0, lost: 0, bytes: 0 }, 'nothing is acknowledged that was not');
    await target.acknowledge(target.sequence);
    await link.copiesDrained(new AbortController().signal);
    for (const [i, { said }] of copies.entries())
      t.same(said, { acked: batches[i]!.length / 2, lost: 0, bytes: sent[i] }, 'every run once');
  });

t.test('a stream that breaks: what was acknowledged counts, the runs behind it are lost', async (t) => {
  const { batch, content } = mixedImage(t, 'broken');
  const { link, target } = await world(t, content.length);
  const { said, copying } = copy(link, batch);
  link.resize(0, content.length, () => {});
  await target.applyToSize();
  await copying;
  const some = Math.floor(target.sequence / 2);
  await target.acknowledge(some);
  await waitFor(() => said.acked > 0, 'it is told');
  target.hangUp();
  await link.closed;
  const runs = batch.runs.length / 2;
  t.equal(said.acked + said.lost, runs, 'every run once');
  t.ok(said.lost > 0);
  const end = batch.runs[2 * said.acked]!;
  const last = target.ends.findLast(({ offset }) => offset <= end)!;
  t.ok(last.sequence <= some, `record ${last.sequence} ends the acknowledged runs, ${some} was acknowledged`);
});

t.test('an image that cannot be read fails its batch, and no other', async (t) => {
  const { batch, content } = mixedImage(t, 'unreadable');
  const { link, target } = await world(t, content.length);
  const unreadable = openSync(join(scratchDir(t), 'unreadable'), 'wx');
  t.teardown(() => closeSync(unreadable));
  ftruncateSync(unreadable, MiB);
  writeSync(unreadable, 'data', 0);
  const failing = copy(link, { ...batch, fd: unreadable });
  const { said, copying } = copy(link, batch);
  link.resize(0, content.length, () => {});
  await t.rejects(failing.copying, { code: 'INTERNAL', message: /cannot read .*EBADF/ });
  await target.applyToSize();
  await target.acknowledge(target.sequence);
  await link.copiesDrained(new AbortController().signal);
  t.same(failing.said, { acked: 0, lost: 0, bytes: 0 }, 'nothing is said of its runs');
  t.equal(await copying, said.bytes);
  t.equal(said.acked, batch.runs.length / 2);
  t.ok(target.content.equals(content));
});
