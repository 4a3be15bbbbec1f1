/**
 * The proof that nothing was lost: what the guest's console acknowledged against what its disks hold at the end. The slot
 * and every byte of a record follow from its number (guest/writer.c), so nothing else has to be remembered.
 */
import { open } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { MiB } from '../../src/leaves/units.js';

export interface ConsoleLine {
  readonly text: string;
  /** When it came, monotonic milliseconds of the host. */
  readonly at: number;
  readonly kind: 'began' | 'flushed' | 'alive' | 'quit' | 'failed' | 'other';
  /** Number of the record that it is about; 0 where it is about none. */
  readonly number: number;
  /** Milliseconds of the guest's clock. */
  readonly guestTime?: number;
}

/** What decides where a record goes, and which records belong here. */
export interface RecordPlan {
  readonly run: number;
  readonly slots: number;
  readonly disks: number;
}

const RECORD_BYTES = 4096;
const CHECKED_BYTES = RECORD_BYTES - 8;
const MAGIC = 0x4d46532d52454331n;
const CHUNK_BYTES = MiB;
const FAULTS_MAX = 20;
const MASK = (1n << 64n) - 1n;

const KINDS = { R: 'began', A: 'flushed', H: 'alive', Q: 'quit', E: 'failed' } as const;
const SHAPE = /^(?:(R)|(Q) (\d+)|([AH]) (\d+) (\d+)|(E) (\d+) .*)$/;
/** What a kernel says when a disk or the machine itself fails. */
const ALARM = /I\/O error|panic|BUG:|Call Trace|Oops|soft lockup|Remounting/;

/** Lines of the kernel, and those cut in two by a migration, are `other`. */
export const parseConsoleLine = (text: string, at: number): ConsoleLine => {
  const match = SHAPE.exec(text);
  if (!match) return { text, at, kind: 'other', number: 0 };
  const letter = (match[1] ?? match[2] ?? match[4] ?? match[7]) as keyof typeof KINDS;
  const number = Number(match[3] ?? match[5] ?? match[8] ?? 0);
  return {
    text,
    at,
    kind: KINDS[letter],
    number,
    ...(match[6] !== undefined && { guestTime: Number(match[6]) }),
  };
};

/** splitmix64 (Vigna 2015), as in writer.c. */
const mix = (value: bigint): bigint => {
  let x = (value + 0x9e3779b97f4a7c15n) & MASK;
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return x ^ (x >> 31n);
};

export const slotOf = ({ run, slots }: RecordPlan, number: number): number =>
  Number(mix(BigInt(number) ^ mix(BigInt(run))) % BigInt(slots));

export const diskOf = ({ disks }: RecordPlan, number: number): number => number % disks;

/** For each disk: the newest record up to `acknowledged` of each slot, 0 where there is none. */
const newestRecords = (plan: RecordPlan, acknowledged: number): Float64Array[] => {
  const newest = Array.from({ length: plan.disks }, () => new Float64Array(plan.slots));
  for (let number = 1; number <= acknowledged; number++)
    newest[diskOf(plan, number)]![slotOf(plan, number)] = number;
  return newest;
};

/** Whether `bytes` are what slot `slot` held before the guest wrote anything. */
export type Untouched = (slot: number, bytes: Buffer) => boolean;

const isZero: Untouched = (_slot, bytes) => bytes.every((byte) => byte === 0);

/** The number of the record in `bytes`, 0 where nothing was written, or what is wrong with it. */
const numberIn = (
  plan: RecordPlan,
  disk: number,
  slot: number,
  bytes: Buffer,
  untouched: Untouched,
): number | string => {
  if (bytes.readBigUInt64LE(0) !== MAGIC) return untouched(slot, bytes) ? 0 : 'is not a record';
  if (bytes.readBigUInt64LE(CHECKED_BYTES) !== BigInt(crc32(bytes.subarray(0, CHECKED_BYTES))))
    return 'is torn';
  const number = Number(bytes.readBigUInt64LE(8));
  if (bytes.readBigUInt64LE(24) !== BigInt(plan.run)) return `is record ${number} of another run`;
  if (
    bytes.readBigUInt64LE(16) !== BigInt(slot) ||
    slotOf(plan, number) !== slot ||
    diskOf(plan, number) !== disk
  )
    return `holds record ${number}, which belongs elsewhere`;
  return number;
};

/** What is wrong with what the console said, from boot to end, on however many hosts. Empty: nothing. */
export const consoleFaults = (lines: readonly ConsoleLine[]): string[] => {
  const faults: string[] = [];
  let [written, flushed, guestTime] = [0, 0, 0];
  for (const { kind, text, number, guestTime: time = guestTime } of lines) {
    if (kind === 'failed' || ALARM.test(text)) faults.push(`the guest said: ${text}`);
    if (kind === 'alive' || kind === 'flushed') {
      if (number < (kind === 'alive' ? written : flushed))
        faults.push(`the guest went back in time: ${text}`);
      if (time < guestTime) faults.push(`the guest's clock went back: ${text}`);
      guestTime = time;
    }
    if (kind === 'alive') written = number;
    if (kind === 'flushed') flushed = number;
  }
  return faults.slice(0, FAULTS_MAX);
};

/**
 * What is wrong with the raw images `disks` of a guest whose consoles said `lines`. Empty: every acknowledged record, or
 * a later one of its slot, is there, none is torn, and nothing else is there but what is `untouched` (default: zeroes).
 */
export const recordFaults = async (
  lines: readonly ConsoleLine[],
  disks: readonly string[],
  workload: Omit<RecordPlan, 'disks'>,
  untouched: Untouched = isZero,
): Promise<string[]> => {
  const plan = { ...workload, disks: disks.length };
  const quit = lines.find(({ kind }) => kind === 'quit')?.number;
  const acknowledged =
    quit ?? Math.max(0, ...lines.filter(({ kind }) => kind === 'flushed').map(({ number }) => number));
  const last = quit ?? Number.POSITIVE_INFINITY;
  const newest = newestRecords(plan, acknowledged);
  const faults: string[] = [];
  for (const [disk, path] of disks.entries()) {
    await using file = await open(path, 'r');
    const chunk = Buffer.alloc(CHUNK_BYTES);
    for (let start = 0; start < plan.slots; start += CHUNK_BYTES / RECORD_BYTES) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, start * RECORD_BYTES);
      const slots = Math.min(plan.slots - start, Math.floor(bytesRead / RECORD_BYTES));
      for (let i = 0; i < slots; i++) {
        const slot = start + i;
        const bytes = chunk.subarray(i * RECORD_BYTES, (i + 1) * RECORD_BYTES);
        const found = numberIn(plan, disk, slot, bytes, untouched);
        const where = `slot ${slot} of disk ${disk}`;
        const wanted = newest[disk]![slot]!;
        if (typeof found === 'string') faults.push(`${where} ${found}`);
        else if (found < wanted) faults.push(`${where} holds record ${found}, acknowledged was ${wanted}`);
        else if (found > last) faults.push(`${where} holds record ${found}, the last one was ${last}`);
      }
    }
  }
  if (acknowledged === 0) faults.push('the guest has acknowledged nothing');
  const more = faults.length - FAULTS_MAX;
  return more > 0 ? [...faults.slice(0, FAULTS_MAX), `and ${more} more`] : faults;
};
