/**
 * Who asks a data port for a stream without being the source gets none; what cannot be understood ends it; and a migration
 * without a stream gets there as well (G7, G2).
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { recordChecksum } from '../../src/leaves/checksum.js';
import { RecordSeal } from '../../src/leaves/record-seal.js';
import {
  RECORD_HEAD_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_KIND,
  RECORD_PREFIX_BYTES,
  RecordHead,
  type RecordKind,
} from '../../src/leaves/stream-record.js';
import { KiB, MiB } from '../../src/leaves/units.js';
import { identical } from '../support/cutover.js';
import { filesOf } from '../support/debris.js';
import { makeSparseImage } from '../support/files.js';
import { type Followed, migrate, type Pair, startPair } from '../support/pair.js';
import { seedFromEnvironment } from '../support/random.js';
import { StampWriter } from '../support/stamp-writer.js';
import { askForStream, type StreamFate, StreamThief } from '../support/stream-thief.js';
import { within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const IMAGE = 'vm.raw';
const CLOSE_MAX_MS = 15_000;

interface World {
  readonly pair: Pair;
  readonly thief: StreamThief;
  readonly migration: Followed;
}

const started = async (t: Test, fate: StreamFate): Promise<World> => {
  const pair = await startPair(t);
  makeSparseImage(pair.source.daemon.below(IMAGE), 32 * MiB, [{ offset: 8 * MiB, length: 8 * MiB }]);
  const thief = await StreamThief.start(t, pair.target.daemon.dataAddress);
  thief.fate = fate;
  const migration = await migrate(t, pair, [IMAGE], { cutover: 'explicit', to: thief.address });
  return { pair, thief, migration };
};

const completes = async (t: Test, { pair, migration }: World): Promise<void> => {
  await migration.reaches('mirroring');
  const [report] = await pair.source.client.verify(migration.id);
  t.same(report?.mismatches, [], 'both sides are the same');
  await pair.source.client.cutover(migration.id);
  await migration.reaches('completed');
  t.ok(await identical(pair.source.daemon.below(IMAGE), pair.target.daemon.below(IMAGE)));
  t.same(filesOf(pair.target.daemon), [IMAGE], 'nothing else was made');
};

const warned = ({ pair }: World, side: keyof Pair, pattern: RegExp): boolean =>
  pair[side].daemon.log.some((line) => pattern.test(line) && /"level":(40|50)/.test(line));

t.test('a stranger without the token gets no stream, and disturbs nobody', async (t) => {
  const world = await started(t, 'break');
  const { pair, thief, migration } = world;
  await migration.reaches('mirroring');
  const { dataAddress } = pair.target.daemon;
  const { length } = thief.token;
  t.ok(length >= 16, 'a token that cannot be guessed, and that nobody has used');
  const guesses: [string, string, Uint8Array][] = [
    ['none', migration.id, new Uint8Array()],
    ['a wrong one', migration.id, randomBytes(length)],
    ['the beginning of it', migration.id, thief.token.subarray(0, length - 1)],
    ['of another migration', 'stranger', thief.token],
  ];
  for (const [what, id, token] of guesses) {
    const { socket, refusal } = await askForStream(t, dataAddress, id, token);
    t.equal(refusal, 'FAILED_PRECONDITION', what);
    if (!socket.closed)
      await within(once(socket, 'close'), CLOSE_MAX_MS, () => 'the daemon keeps the connection open');
  }
  await waitFor(async () => warned(world, 'target', /stream refused/), 'it is in the log');
  await completes(t, world);
  t.strictSame(migration.states.includes('interrupted'), false);
});

t.test('a token is good for one stream', async (t) => {
  const world = await started(t, 'pass');
  const { pair, thief, migration } = world;
  await migration.reaches('mirroring');
  t.equal(thief.asked, 1, 'the source has its stream');
  const { refusal } = await askForStream(t, pair.target.daemon.dataAddress, migration.id, thief.token);
  t.equal(refusal, 'FAILED_PRECONDITION');
  await completes(t, world);
});

t.test('once the images have been handed over no stream is taken', async (t) => {
  const world = await started(t, 'break');
  const { pair, thief, migration } = world;
  await completes(t, world);
  const { refusal } = await askForStream(t, pair.target.daemon.dataAddress, migration.id, thief.token);
  t.equal(refusal, 'FAILED_PRECONDITION', 'with a token that nobody has used');
});

const record = (kind: number, image: number, payload: number, seq = 1, length = payload): Buffer => {
  const bytes = Buffer.alloc(RECORD_HEAD_BYTES + payload, 0xa5);
  new RecordHead(bytes.buffer, bytes.byteOffset).put(RECORD_KIND.data, image, 9 * MiB, payload, seq);
  bytes.writeUInt16LE(kind, RECORD_PREFIX_BYTES);
  bytes.writeUInt32LE(length, RECORD_PREFIX_BYTES + 16);
  return Buffer.from(new RecordSeal(null).seal(bytes, 0));
};
const DATA: RecordKind = RECORD_KIND.data;
const wrongCrc = record(DATA, 0, 4 * KiB);
wrongCrc.writeUInt32LE((recordChecksum(wrongCrc.subarray(RECORD_PREFIX_BYTES)) ^ 1) >>> 0, 4);
const tooLong = Buffer.alloc(64);
tooLong.writeUInt32LE(0x7fffffff, 0);
const tooShort = Buffer.alloc(64);
tooShort.writeUInt32LE(RECORD_HEADER_BYTES - 1, 0);

for (const [what, bytes] of [
  ['a wrong CRC', wrongCrc],
  ['an unknown kind', record(9, 0, 4 * KiB)],
  ['an acknowledgement from a source', record(RECORD_KIND.ack, 0, 0)],
  ['an image that there is not', record(DATA, 1, 4 * KiB)],
  ['less payload than it says', record(DATA, 0, 4 * KiB, 1, 5 * KiB)],
  ['more payload than it says', record(DATA, 0, 4 * KiB, 1, 3 * KiB)],
  ['too great a length', tooLong],
  ['too small a length', tooShort],
  ['the number of the one before', Buffer.concat([record(RECORD_KIND.hole, 0, 0), record(DATA, 0, 4 * KiB)])],
] as const)
  t.test(`a record with ${what} ends the stream; the migration resumes and ends equal`, async (t) => {
    const world = await started(t, 'break');
    const { pair, thief, migration } = world;
    await migration.reaches('mirroring');
    const { socket, refusal } = await askForStream(
      t,
      pair.target.daemon.dataAddress,
      migration.id,
      thief.token,
    );
    t.equal(refusal, undefined, 'it is taken for the source');
    thief.fate = 'pass';
    const closed = once(socket, 'close');
    socket.write(Buffer.concat([Buffer.alloc(1), bytes]));
    await within(closed, CLOSE_MAX_MS, () => 'the daemon keeps the stream');
    await migration.reaches('interrupted');
    await waitFor(async () => warned(world, 'target', /unacceptable record/), 'it is in the log');
    await migration.reaches('mirroring');
    t.equal(thief.asked, 2, 'the source has a stream now');
    await completes(t, world);
  });

for (const fate of ['break', 'ignore'] as const)
  t.test(
    `a migration whose stream cannot be opened (${fate}) gets in sync over the connection`,
    async (t) => {
      const seed = seedFromEnvironment();
      t.comment(`seed ${seed}`);
      const world = await started(t, fate);
      const { pair, thief, migration } = world;
      const writer = new StampWriter({ offset: 0, length: 4 * MiB }, seed);
      await writer.start(pair.source.daemon.at(IMAGE), 2);
      await migration.reaches('mirroring');
      t.equal(thief.asked, 1);
      await waitFor(async () => warned(world, 'source', /no stream/), 'it is in the log');
      const { writes } = writer;
      await waitFor(() => writer.writes > writes + 100, 'guests write in sync');
      await writer.stop();
      t.equal(writer.refusal, null);
      await completes(t, world);
      t.same((await writer.check(pair.target.daemon.at(IMAGE))).lost, []);
    },
  );
