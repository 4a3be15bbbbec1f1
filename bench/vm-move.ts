/** One live migration of the test guest, measured from outside, and the proof that it lost nothing. */
import { mkdtempSync, statSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeTree, type Teardown } from '../test/support/scratch.js';
import { TestBed } from '../test/support/test-bed.js';
import { Guest, GuestRam, type Workload } from '../test/vm/guest.js';
import { RECORD_BYTES } from '../test/vm/live-migration.js';
import { type ConsoleLine, consoleFaults, recordFaults } from '../test/vm/records.js';
import type { DiskPattern } from './vm-disk.js';
import { type MoverName, makeMover, monitorPath } from './vm-movers.js';
import { WarmMemory } from './warm-memory.js';

export interface VmMoveOptions {
  /** Bytes of the disk. */
  readonly size: number;
  /** Bytes per second that the guest wants to write. */
  readonly rate: number;
  /** Records between two flushes. */
  readonly flush: number;
  /** Of the measurements before the move and in sync. */
  readonly seconds: number;
  /** Where images are made. */
  readonly dir: string;
  readonly daemonArgs: readonly string[];
}

export interface VmMove {
  /** Empty: nothing was lost, and nothing else is wrong. */
  readonly faults: readonly string[];
  /** Seconds until in sync, and from the order to move the VM until its first record on the target. */
  readonly copy: number;
  readonly handOver: number;
  /** Bytes per second that the guest wrote. */
  readonly before: number;
  readonly copying: number;
  readonly inSync: number;
  /** Milliseconds without a record of the guest, and those that QEMU claims. */
  readonly downtime: number;
  readonly claimed: number;
  /** Bytes on the cable of the source, both directions, during copy and hand-over. */
  readonly wire: number;
  /** Of these, beyond the disk itself, for each byte that the guest wrote during the copy. */
  readonly extra: number;
}

/** Records that the guest flushes on the target before it ends. */
const ENOUGH = 512;
/** What the guest did not get to write while it stood still, it writes now; not counted. */
const CATCH_UP_MS = 500;

const progressOf = (lines: readonly ConsoleLine[]): ConsoleLine[] =>
  lines.filter(({ kind }) => kind === 'alive' || kind === 'flushed');

/** Bytes per second that the guest wrote between two moments. */
const rateBetween = (guest: Guest, from: number, to: number): number => {
  const beats = progressOf(guest.lines).filter(({ kind, at }) => kind === 'alive' && at >= from && at <= to);
  const [first, last] = [beats[0], beats.at(-1)];
  const elapsed = first && last ? last.at - first.at : 0;
  // Fewer than two signs of life: it wrote nothing.
  return elapsed > 0 ? ((last!.number - first!.number) * RECORD_BYTES * 1000) / elapsed : 0;
};

/** The first line of the target's console that shows a record more than the source's last. */
const newRecord = (old: Guest, fresh: Guest): Promise<ConsoleLine> => {
  const written = Math.max(...progressOf(old.lines).map(({ number }) => number));
  return fresh.says(({ kind, number }) => (kind === 'alive' || kind === 'flushed') && number > written);
};

export const moveVm = async (
  t: Teardown,
  name: MoverName,
  master: { readonly path: string; readonly pattern: DiskPattern },
  options: VmMoveOptions,
  run: number,
): Promise<VmMove> => {
  const folder = mkdtempSync(join(options.dir, 'mfs-vm-'));
  t.teardown(() => removeTree(folder));
  const bed = await TestBed.create(t, { a: {}, b: {} });
  const { size, daemonArgs } = options;
  const mover = await makeMover(t, name, { bed, folder, size, daemonArgs });
  await copyFile(master.path, mover.sourceFile);
  using warm = await WarmMemory.hold(folder, size);

  const slots = size / RECORD_BYTES;
  const workload: Workload = { run, slots, rate: options.rate / RECORD_BYTES, flush: options.flush };
  const ram = GuestRam.create(t, folder);
  const start = async (side: 'source' | 'target'): Promise<Guest> => {
    const guest = Guest.start(t, {
      disks: [{ path: mover[side], format: 'raw', cache: 'none' }],
      ...{ workload, ram, monitor: monitorPath(folder, side), incoming: side === 'target' },
      prefix: bed.host(side === 'source' ? 'a' : 'b').namespace.prefix,
    });
    await guest.listens();
    return guest;
  };
  const bytesOnCable = (): number => bed.host('a').bytesSent + bed.host('a').bytesReceived;

  const old = await start('source');
  await old.acknowledges(ENOUGH);
  let fresh = mover.targetFirst ? await start('target') : undefined;
  await sleep(CATCH_UP_MS);
  const watched = performance.now();
  await sleep(options.seconds * 1000);

  const watchedUntil = performance.now();
  warm[Symbol.dispose]();
  const began = performance.now();
  const wireBefore = bytesOnCable();
  await mover.copy();
  const inSync = performance.now();
  const copied = bytesOnCable() - wireBefore;

  fresh ??= await start('target');
  await sleep(CATCH_UP_MS);
  const watchedInSync = performance.now();
  await sleep(options.seconds * 1000);

  const ordered = performance.now();
  const wireInSync = bytesOnCable();
  const claimed = await mover.handOver();
  const resumed = await newRecord(old, fresh);
  const handedOver = bytesOnCable() - wireInSync;
  await mover.settled();
  await fresh.acknowledges(ENOUGH);
  await fresh.finish();
  await old.exited;

  const lines = [...old.lines, ...fresh.lines];
  const faults = [
    ...consoleFaults(lines),
    ...(await recordFaults(lines, [mover.targetFile], workload, master.pattern.untouched)),
  ];
  if (statSync(mover.targetFile).size !== size) faults.push('the disk has another size on the target');
  const wire = copied + handedOver;
  const copying = rateBetween(old, began, inSync);
  return {
    faults,
    copy: (inSync - began) / 1000,
    handOver: (resumed.at - ordered) / 1000,
    before: rateBetween(old, watched, watchedUntil),
    // With shared storage there is no copy.
    copying: name === 'shared' ? Number.NaN : copying,
    inSync: rateBetween(old, watchedInSync, ordered),
    downtime: resumed.at - progressOf(old.lines).at(-1)!.at,
    claimed,
    wire,
    extra: (wire - size) / ((copying * (inSync - began)) / 1000),
  };
};
