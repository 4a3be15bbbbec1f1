/** One live migration of a real VM between two daemons, and the proof that its disks lost nothing. */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { QemuDriver } from '../../src/broker/hypervisor/qemu-driver.js';
import type { MoveJob } from '../../src/broker/scheduler/hypervisor-driver.js';
import { systemClock } from '../../src/leaves/clock.js';
import type { LogSink } from '../../src/leaves/log-sink.js';
import { millis } from '../../src/leaves/units.js';
import { type Host, migrate, type Pair, startPair } from '../support/pair.js';
import { runOk } from '../support/run.js';
import { scratchDir, type Teardown } from '../support/scratch.js';
import { TestBed } from '../support/test-bed.js';
import { Guest, type GuestDisk, GuestRam, type Workload } from './guest.js';
import { type ConsoleLine, consoleFaults, recordFaults } from './records.js';

export interface VmCase {
  readonly name: string;
  readonly format: GuestDisk['format'];
  readonly cache: GuestDisk['cache'];
  readonly disks: number;
  /** Bytes per second that the guest wants to write. */
  readonly rate: number;
  /** Two hosts of a test bed instead of two daemons on loopback. */
  readonly namespaces: boolean;
}

export const DEFAULT_CASE: VmCase = {
  name: 'raw, cache=none, one disk, 5 MB/s',
  format: 'raw',
  cache: 'none',
  disks: 1,
  rate: 5e6,
  namespaces: true,
};

export interface VmReport {
  /** Empty: nothing was lost, and nothing else is wrong. */
  readonly faults: readonly string[];
  /** Bytes per second that the guest wrote before, while its disks were copied, in sync, and on the target. */
  readonly rates: Readonly<Record<'before' | 'copying' | 'inSync' | 'after', number>>;
  /** Milliseconds: as QEMU says, the silence of the console, and the first write's wait for ownership. */
  readonly downtime: number;
  readonly silence: number;
  readonly stall: number;
  /** Seconds until in sync. */
  readonly copySeconds: number;
}

export const RECORD_BYTES = 4096;
const SLOTS = 16_384;
const DISK_BYTES = SLOTS * RECORD_BYTES;
const FLUSH = 64;
/** Records that the guest flushes in each part of a run before it goes on. */
const ENOUGH = 512;
export const MOVE_MAX = millis(60_000);

const diskName = (index: number, { format }: VmCase): string => `vm/disk${index}.${format}`;

/** Makes the disks; a qcow2 one is on a base image that both hosts have. */
const makeDisks = async (vmCase: VmCase, source: Host, target: Host): Promise<void> => {
  for (const { daemon } of [source, target]) {
    await mkdir(daemon.below('vm'), { recursive: true });
    if (vmCase.format === 'qcow2') {
      writeFileSync(daemon.below('vm/base.raw'), '');
      truncateSync(daemon.below('vm/base.raw'), DISK_BYTES);
    }
  }
  for (let index = 0; index < vmCase.disks; index++) {
    const path = source.daemon.below(diskName(index, vmCase));
    const size = vmCase.format === 'raw' ? [path, String(DISK_BYTES)] : [path];
    const base = vmCase.format === 'qcow2' ? ['-b', 'base.raw', '-F', 'raw'] : [];
    await runOk('qemu-img', ['create', '-q', '-f', vmCase.format, ...base, ...size]);
  }
};

const disksOf = (vmCase: VmCase, { daemon }: Host): GuestDisk[] =>
  Array.from({ length: vmCase.disks }, (_, index) => ({
    path: daemon.at(diskName(index, vmCase)),
    format: vmCase.format,
    cache: vmCase.cache,
  }));

/** Raw files with what the guest's disks hold on `host`, read behind the mount. */
const rawDisks = async (vmCase: VmCase, { daemon }: Host, folder: string): Promise<string[]> => {
  const paths: string[] = [];
  for (let index = 0; index < vmCase.disks; index++) {
    const path = daemon.below(diskName(index, vmCase));
    if (vmCase.format === 'raw') paths.push(path);
    else {
      paths.push(join(folder, `disk${index}.raw`));
      await runOk('qemu-img', ['convert', '-O', 'raw', path, paths[index]!]);
    }
  }
  return paths;
};

/** Bytes per second that the guest wrote between two moments, by its own clock. */
const rateBetween = (lines: readonly ConsoleLine[], from: number, to: number): number => {
  const beats = lines.filter(({ kind, at }) => kind === 'alive' && at >= from && at <= to);
  const [first, last] = [beats[0], beats.at(-1)];
  const elapsed = first && last ? last.guestTime! - first.guestTime! : 0;
  return elapsed > 0 ? ((last!.number - first!.number) * RECORD_BYTES * 1000) / elapsed : 0;
};

/**
 * The same guest moved to a copy of its disk that was made while it was writing, without MigrateFS: what the verifier
 * must find. Returns its faults.
 */
export const runOnStaleCopy = async (t: Teardown, run: number): Promise<readonly string[]> => {
  const folder = scratchDir(t, 'vm');
  const disks = ['disk', 'copy'].map((name) => join(folder, name));
  const workload: Workload = { run, slots: SLOTS, rate: DEFAULT_CASE.rate / RECORD_BYTES, flush: FLUSH };
  const ram = GuestRam.create(t, folder);
  writeFileSync(disks[0]!, '');
  truncateSync(disks[0]!, DISK_BYTES);
  const [old, fresh] = [0, 1].map(
    (side) => (): Guest =>
      Guest.start(t, {
        disks: [{ path: disks[side]!, format: 'raw', cache: 'writeback' }],
        workload,
        ram,
        monitor: join(folder, `monitor${side}`),
        incoming: side === 1,
      }),
  );
  const source = old!();
  await source.acknowledges(ENOUGH);
  await copyFile(disks[0]!, disks[1]!);
  await source.acknowledges(ENOUGH);
  const target = fresh!();
  await target.listens();
  const driver = driverOf(
    `unix:${folder}/monitor0`,
    `unix:${folder}/monitor1`,
    `unix:${folder}/migration`,
    () => undefined,
  );
  await driver.move(jobOf([], 'none'), AbortSignal.timeout(MOVE_MAX));
  await target.acknowledges(1);
  await target.finish();
  const lines = [...source.lines, ...target.lines];
  return [...consoleFaults(lines), ...(await recordFaults(lines, [disks[1]!], workload))];
};

/** Moves the VM between the two monitors; both QEMUs have its RAM. */
export const driverOf = (source: string, target: string, migrateTo: string, log: LogSink): QemuDriver =>
  new QemuDriver({
    ...{ source, target, migrate: migrateTo, log },
    capabilities: ['x-ignore-shared'],
    timeout: MOVE_MAX,
    clock: systemClock,
  });

export const jobOf = (images: readonly string[], migrationId: string): MoveJob => ({
  ...{ task: 't1', attempt: 1, vm: 'vm', source: 'a', target: 'b' },
  ...{ images, migrationId },
});

const twoHosts = async (
  t: Teardown,
  { namespaces }: VmCase,
): Promise<Pair & { readonly prefixes: readonly (readonly string[])[]; readonly migrateTo: string }> => {
  if (!namespaces)
    return { ...(await startPair(t)), prefixes: [[], []], migrateTo: `unix:${scratchDir(t, 'ram')}/m` };
  const bed = await TestBed.create(t, { a: {}, b: {} });
  const [a, b] = [bed.host('a'), bed.host('b')];
  return {
    source: await a.startDaemon(t),
    target: await b.startDaemon(t),
    prefixes: [a.namespace.prefix, b.namespace.prefix],
    migrateTo: `tcp:${b.address}:7099`,
  };
};

/** Runs the case; rejects when something does not happen at all. */
export const runVmCase = async (t: Teardown, vmCase: VmCase, run: number): Promise<VmReport> => {
  const folder = scratchDir(t, 'vm');
  const hosts = await twoHosts(t, vmCase);
  const { source, target } = hosts;
  await makeDisks(vmCase, source, target);
  const workload: Workload = { run, slots: SLOTS, rate: vmCase.rate / RECORD_BYTES, flush: FLUSH };
  const ram = GuestRam.create(t, folder);
  const start = (side: 0 | 1): Guest =>
    Guest.start(t, {
      disks: disksOf(vmCase, [source, target][side]!),
      workload,
      ram,
      monitor: join(folder, ['source', 'target'][side]!),
      incoming: side === 1,
      prefix: hosts.prefixes[side]!,
    });
  const old = start(0);
  await old.acknowledges(ENOUGH);
  const began = performance.now();
  const images = Array.from({ length: vmCase.disks }, (_, index) => diskName(index, vmCase));
  const followed = await migrate(t, { source, target }, images);
  await followed.reaches('mirroring');
  const inSync = performance.now();
  await old.acknowledges(ENOUGH);
  const moved = performance.now();
  const fresh = start(1);
  let downtime = Number.NaN;
  const driver = driverOf(
    `unix:${folder}/source`,
    `unix:${folder}/target`,
    hosts.migrateTo,
    (_, __, fields) => {
      downtime = Number((fields as { downtime?: number }).downtime ?? downtime);
    },
  );
  await fresh.listens();
  await driver.move(jobOf(images, followed.id), AbortSignal.timeout(MOVE_MAX));
  const completed = await followed.reaches('completed');
  await fresh.acknowledges(ENOUGH);
  await fresh.finish();
  await old.exited;
  const lines = [...old.lines, ...fresh.lines];
  const faults = [
    ...consoleFaults(lines),
    ...(await recordFaults(lines, await rawDisks(vmCase, target, folder), workload)),
  ];
  for (const image of images)
    if (
      statSync(target.daemon.below(image)).size !== statSync(source.daemon.below(image)).size &&
      vmCase.format === 'raw'
    )
      faults.push(`${image} has another size on the target`);
  const beats = (guest: Guest): ConsoleLine[] => guest.lines.filter(({ kind }) => kind === 'alive');
  return {
    faults,
    rates: {
      before: rateBetween(lines, 0, began),
      copying: rateBetween(lines, began, inSync),
      inSync: rateBetween(lines, inSync, moved),
      after: rateBetween(fresh.lines, 0, Number.POSITIVE_INFINITY),
    },
    downtime,
    silence: beats(fresh)[0]!.at - beats(old).at(-1)!.at,
    stall: completed.cutoverStall ?? Number.NaN,
    copySeconds: (inSync - began) / 1000,
  };
};
