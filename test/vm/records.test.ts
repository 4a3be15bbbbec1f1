import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import t, { type Test } from 'tap';
import { scratchDir } from '../support/scratch.js';
import { consoleFaults, diskOf, parseConsoleLine, recordFaults, slotOf, type Untouched } from './records.js';

const PLAN = { run: 7, slots: 64, disks: 2 };
const RECORD_BYTES = 4096;

const consoleOf = (...texts: string[]) => texts.map((text, index) => parseConsoleLine(text, index));

/** Disks on which the records up to `last` were written. */
const disksWith = (last: number, run = PLAN.run): Buffer[] => {
  const disks = Array.from({ length: PLAN.disks }, () => Buffer.alloc(PLAN.slots * RECORD_BYTES));
  for (let number = 1; number <= last; number++) {
    const slot = slotOf({ ...PLAN, run }, number);
    const record = disks[diskOf(PLAN, number)]!.subarray(slot * RECORD_BYTES, (slot + 1) * RECORD_BYTES);
    record.fill(number & 0xff);
    for (const [index, value] of [0x4d46532d52454331n, BigInt(number), BigInt(slot), BigInt(run)].entries())
      record.writeBigUInt64LE(value, index * 8);
    record.writeBigUInt64LE(BigInt(crc32(record.subarray(0, RECORD_BYTES - 8))), RECORD_BYTES - 8);
  }
  return disks;
};

const faultsOf = (
  t: Test,
  disks: readonly Buffer[],
  lines: readonly string[],
  untouched?: Untouched,
): Promise<string[]> => {
  const folder = scratchDir(t, 'records');
  const paths = disks.map((bytes, index) => {
    const path = join(folder, `disk${index}`);
    writeFileSync(path, bytes);
    return path;
  });
  return recordFaults(consoleOf(...lines), paths, PLAN, untouched);
};

t.test('what was acknowledged and is there is right, and so is what was written after', async (t) => {
  t.same(await faultsOf(t, disksWith(500), ['R', 'A 500 10', 'Q 500']), []);
  t.same(await faultsOf(t, disksWith(500), ['R', 'A 400 10', 'H 450 12']), []);
});

t.test('an acknowledged record that is not there is a fault', async (t) => {
  const faults = await faultsOf(t, disksWith(499), ['R', 'A 500 10']);
  t.equal(faults.length, 1);
  t.match(faults[0], `slot ${slotOf(PLAN, 500)} of disk 0 holds record`);
  t.match(faults[0], 'acknowledged was 500');
});

t.test('a record after the last one, a torn one, another run and nothing at all are faults', async (t) => {
  t.match(await faultsOf(t, disksWith(500), ['R', 'Q 499']), [/the last one was 499/]);
  const torn = disksWith(500);
  torn[1]!.writeUInt8(torn[1]!.readUInt8(2000) ^ 1, 2000);
  t.match(await faultsOf(t, torn, ['R', 'Q 500']), [/slot 0 of disk 1 is torn/]);
  t.match((await faultsOf(t, disksWith(500, 8), ['R', 'Q 500']))[0], /of another run/);
  t.match(await faultsOf(t, disksWith(0), ['R']), [/acknowledged nothing/]);
  const swapped = disksWith(500).reverse();
  t.match((await faultsOf(t, swapped, ['R', 'Q 500']))[0], /belongs elsewhere/);
});

t.test('a disk that was full before the guest wrote must be the same where it did not write', async (t) => {
  const full = (slot: number, bytes: Buffer): boolean => bytes.every((byte) => byte === slot + 1);
  const disks = disksWith(40);
  const slots = disks.flatMap((disk) =>
    Array.from({ length: PLAN.slots }, (_, slot) => ({
      slot,
      bytes: disk.subarray(slot * RECORD_BYTES, (slot + 1) * RECORD_BYTES),
    })),
  );
  const empty = slots.filter(({ bytes }) => bytes.every((byte) => byte === 0));
  for (const { slot, bytes } of empty) bytes.fill(slot + 1);
  t.same(await faultsOf(t, disks, ['R', 'Q 40'], full), []);
  empty[0]!.bytes.fill(0);
  empty[1]!.bytes[100]! ^= 1;
  t.match(await faultsOf(t, disks, ['R', 'Q 40'], full), [/is not a record/, /is not a record/]);
});

t.test('a guest that fails, goes back or whose kernel complains is noticed', async (t) => {
  t.same(consoleFaults(consoleOf('R', 'H 5 10', 'A 8 20', 'H 9 30', 'A 16 40', 'Q 20')), []);
  t.match(consoleFaults(consoleOf('E 9 write: I/O error')), [/E 9/]);
  t.match(consoleFaults(consoleOf('A 16 40', 'A 8 50')), [/went back in time/]);
  t.match(consoleFaults(consoleOf('H 16 40', 'H 8 50')), [/went back in time/]);
  t.match(consoleFaults(consoleOf('H 16 40', 'H 17 30')), [/clock went back/]);
  t.match(consoleFaults(consoleOf('[ 1.2] Kernel panic - not syncing')), [/panic/]);
  t.same(parseConsoleLine('34 5678', 0).kind, 'other', 'the rest of a line that another console began');
});
