/** A guest whose writes are mirrored over a network that may carry little. */
import t from 'tap';
import { CONVERGE_BYTES } from '../../src/leaves/copy-forecast.js';
import { bytesPerSecond, KiB, MiB, UNLIMITED } from '../../src/leaves/units.js';
import { waitFor } from '../support/wait-for.js';
import { inSync } from './in-sync.js';

const SIZE = 16 * MiB;
const RECORD = 8 * KiB;
const WRITES = 1024;

t.test('mirrored writes go at the rate of the limit; a higher one reaches those who wait', async (t) => {
  const { source, target, guest, id } = await inSync(t, SIZE);
  const LIMIT = 400 * KiB;
  await source.replica.setLimits(id, { netLimit: bytesPerSecond(LIMIT) });
  const begun = performance.now();
  let answered = 0;
  const writes = Array.from({ length: WRITES }, async (_, i) => {
    // Every fourth to one place: the last one counts.
    const result = await guest.write(i % 4 === 0 ? 0 : i * RECORD, Buffer.alloc(RECORD, i));
    answered += RECORD;
    return result;
  });
  await source.until(id, ({ bytesMirrored }) => bytesMirrored >= LIMIT);
  const seconds = (performance.now() - begun) / 1000;
  t.ok(answered < (seconds + 0.5) * LIMIT, `${answered} bytes in ${seconds} s under ${LIMIT} bytes/s`);
  // What is sent is acknowledged a moment later.
  await waitFor(() => answered > 0, 'some are answered');
  t.ok(answered < WRITES * RECORD, 'others wait');
  const left = ((WRITES * RECORD - answered) / LIMIT) * 1000;
  const raised = performance.now();
  await source.replica.setLimits(id, { netLimit: UNLIMITED });
  t.same(await Promise.all(writes), Array(WRITES).fill(RECORD), 'without an error');
  const took = performance.now() - raised;
  t.ok(took < left / 2, `the rest took ${took} ms, not ${left}`);
  t.equal((await source.replica.get(id)).state, 'mirroring', 'in sync all the time');
  t.equal((await source.replica.verify(id))[0]!.mismatches.length, 0);
  await source.replica.cutover(id);
  t.equal(target.content('a.img')[0], 252, 'the last of those to one place');
  t.ok(source.content('a.img').equals(target.content('a.img')));
});

t.test('G2: a comparison and a cutover do not miss what waits for the limit', async (t) => {
  const { source, target, guest, id } = await inSync(t, SIZE);
  await source.replica.setLimits(id, { netLimit: bytesPerSecond(2000) });
  const write = async (from: number): Promise<Promise<number>[]> => {
    const answers = Array.from({ length: 32 }, (_, i) =>
      guest.write((from + i) * RECORD, Buffer.alloc(RECORD, from + i)),
    );
    const last = () => source.content('a.img')[(from + 31) * RECORD] === from + 31;
    await waitFor(last, 'the source has performed them');
    return answers;
  };
  const compared = await write(1);
  t.equal((await source.replica.verify(id))[0]!.mismatches.length, 0);
  t.same(await Promise.all(compared), Array(32).fill(RECORD), 'a comparison sends what waits');
  const cut = await write(100);
  await source.replica.cutover(id);
  t.same(await Promise.all(cut), Array(32).fill(RECORD), 'and so does a cutover');
  t.ok(source.content('a.img').equals(target.content('a.img')));
});

t.test(
  'copies do not starve mirrored writes, and nothing waits for a paused or cancelled migration',
  async (t) => {
    const { source, target, guest, id } = await inSync(t, SIZE);
    const { replica } = source;
    await replica.pause(id);
    // No more than what the last part begins with.
    await guest.write(0, Buffer.alloc(CONVERGE_BYTES, 9));
    const LIMIT = 400 * KiB;
    await replica.setLimits(id, { netLimit: bytesPerSecond(LIMIT) });
    await replica.resume(id);
    await source.until(id, ({ state, bytesResent }) => state === 'dirty-resend' && bytesResent > 0);
    // Clean blocks, so that each is mirrored.
    const writes = Array.from({ length: 128 }, (_, i) =>
      guest.write(8 * MiB + i * RECORD, Buffer.alloc(RECORD, i)),
    );
    const before = await replica.get(id);
    const after = await source.until(id, ({ bytesMirrored }) => bytesMirrored >= 256 * KiB);
    t.equal(after.state, 'dirty-resend', 'while there are copies to be sent');
    const copied = after.bytesResent - before.bytesResent;
    t.ok(copied < 3 * 256 * KiB, `${copied} bytes of copies beside 256 KiB of mirrored writes`);
    const asked = performance.now();
    const paused = await replica.pause(id);
    t.same(await Promise.all(writes), Array(128).fill(RECORD));
    t.ok(performance.now() - asked < 1000, 'a pause lets them go');
    const resting = await replica.get(id);
    t.equal(resting.bytesMirrored, paused.bytesMirrored, 'unsent');
    // Copies that were being read are sent: at such a rate one block each.
    const late = resting.bytesSent - paused.bytesSent;
    t.ok(late <= 2 * 64 * KiB, `and nothing but ${late} bytes that were being read is sent any more`);
    await replica.setLimits(id, { netLimit: UNLIMITED });
    await replica.resume(id);
    await source.untilState(id, 'mirroring');
    await replica.setLimits(id, { netLimit: bytesPerSecond(1000) });
    const held = Array.from({ length: 32 }, (_, i) => guest.write(i * RECORD, Buffer.alloc(RECORD, 200 + i)));
    await replica.cancel(id);
    t.same(await Promise.all(held), Array(32).fill(RECORD), 'nor does a cancelled one hold them');
    t.equal(source.content('a.img')[31 * RECORD], 231);
    await target.untilState(id, 'cancelled');
  },
);
