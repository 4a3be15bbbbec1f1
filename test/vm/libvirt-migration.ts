/** A real libvirt domain that a real scheduler moves between two hosts of a test bed, and the proof of what became of it. */
import { existsSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Monitor } from '../../src/broker/hypervisor/monitor.js';
import type { SchedulerClient } from '../../src/control/scheduler-client.js';
import { systemClock } from '../../src/leaves/clock.js';
import { isTaskFinal, type TaskSnapshot } from '../../src/leaves/scheduler.js';
import { millis } from '../../src/leaves/units.js';
import { writeRefusal } from '../support/cutover.js';
import type { Host } from '../support/pair.js';
import { scratchDir, type Teardown } from '../support/scratch.js';
import { TestBed } from '../support/test-bed.js';
import { TestScheduler } from '../support/test-scheduler.js';
import { waitFor } from '../support/wait-for.js';
import type { Workload } from './guest.js';
import { DomainConsole, domainXml, MONITOR } from './libvirt-guest.js';
import { LibvirtHost, makeSharedPaths } from './libvirt-host.js';
import { consoleFaults, recordFaults } from './records.js';

const VM = 'vm7';
const IMAGE = 'vm7/disk.raw';
const RECORD_BYTES = 4096;
const SLOTS = 16_384;
const RATE = 5e6;
/** Records that the guest flushes in each part of a run. */
const ENOUGH = 512;
const END_MAX_MS = 120_000;

interface Side {
  readonly host: Host;
  readonly libvirt: LibvirtHost;
  readonly console: DomainConsole;
  /** Its name in the topology, and its address. */
  readonly name: string;
}

interface Cloud {
  readonly source: Side;
  readonly target: Side;
  readonly scheduler: TestScheduler;
  readonly client: SchedulerClient;
  readonly workload: Workload;
}

/** The VM runs on the source and has written. */
const startCloud = async (t: Teardown, run: number): Promise<Cloud> => {
  const folder = scratchDir(t, 'libvirt');
  const shared = makeSharedPaths(folder);
  const bed = await TestBed.create(t, { a: {}, b: {} });
  const side = async (name: string): Promise<Side> => {
    const bedHost = bed.host(name);
    const host = await bedHost.startDaemon(t);
    const own = join(folder, name);
    mkdirSync(join(own, 'host'), { recursive: true });
    const console = await DomainConsole.create(t, join(own, 'host'));
    const images = host.daemon.mountpoint;
    const libvirt = await LibvirtHost.start(t, bedHost, { folder: own, images, shared });
    return { host, libvirt, console, name: bedHost.address };
  };
  const [source, target] = [await side('a'), await side('b')];
  const image = source.host.daemon.below(IMAGE);
  mkdirSync(dirname(image));
  writeFileSync(image, '');
  truncateSync(image, SLOTS * RECORD_BYTES);
  const workload: Workload = { run, slots: SLOTS, rate: RATE / RECORD_BYTES, flush: 64 };
  writeFileSync(join(folder, 'vm.xml'), domainXml(VM, IMAGE, workload, shared));
  await source.libvirt.virsh('define', join(folder, 'vm.xml'));
  await source.libvirt.virsh('start', VM);
  const sides = [source, target];
  const scheduler = await TestScheduler.start(t, {
    topology: {
      hosts: sides.map(({ name, host: { daemon } }) => ({
        ...{ name, control: daemon.controlAddress, data: daemon.dataAddress },
      })),
      switches: ['tor'],
      links: sides.map(({ name }) => ({
        ...{ name: `up-${name}`, between: [name, 'tor'], capacity: '10Gbit/s' },
      })),
    },
    drivers: {
      libvirt: {
        ...{ type: 'libvirt', source: 'qemu+tcp://{source}/system', target: 'qemu+tcp://{target}/system' },
        ...{ 'migrate-uri': 'tcp://{target}', downtime: '300ms', timeout: '2m' },
      },
    },
    'default-driver': 'libvirt',
  });
  await source.console.acknowledges(ENOUGH);
  return { source, target, scheduler, client: scheduler.connect(t), workload };
};

const submit = async ({ client, source, target }: Cloud): Promise<string> => {
  const { id } = await client.submit({
    ...{ vm: VM, images: [IMAGE], source: source.name, target: target.name, priority: 0 },
    ...{ important: false, writeRate: 0, insist: false },
  });
  return id;
};

const ended = async (client: SchedulerClient, id: string): Promise<TaskSnapshot> => {
  let task: TaskSnapshot;
  await waitFor(
    async () => {
      task = await client.get(id);
      return isTaskFinal(task.state);
    },
    'the task ends',
    END_MAX_MS,
  );
  return task!;
};

/** QEMU 7.2 with -accel tcg loses guest stores when it sends RAM live: both QEMUs have the RAM as one file instead. */
const keepRam = async ({ libvirt }: Side): Promise<void> => {
  await waitFor(() => libvirt.hasMonitor(MONITOR), 'the monitor of QEMU', END_MAX_MS);
  const address = `unix:${join(libvirt.folder, MONITOR)}`;
  let monitor: Monitor | undefined;
  await waitFor(async () => {
    const options = { clock: systemClock, answerMax: millis(10_000) };
    monitor = await Monitor.open(address, 'it', options).catch(() => undefined);
    return monitor !== undefined;
  }, 'QEMU answers');
  using opened = monitor!;
  await opened.setCapabilities(['x-ignore-shared']);
};

/** Has RAM be sent for minutes, so that a move can be seen under way. */
const sendSlowly = async ({ source }: Cloud): Promise<void> => {
  await source.libvirt.virsh('migrate-setspeed', VM, '1');
  await source.libvirt.virsh('migrate-setmaxdowntime', VM, '1');
};

const isSending = async ({ source }: Cloud): Promise<boolean> =>
  /Outgoing migration/.test(await source.libvirt.virsh('domjobinfo', VM));

/** What is wrong with the end of a VM that has to run on `side`, and with its disk there. */
const faultsOf = async (cloud: Cloud, side: Side): Promise<string[]> => {
  const faults: string[] = [];
  const other = side === cloud.source ? cloud.target : cloud.source;
  const state = await side.libvirt.stateOf(VM);
  if (state !== 'running') faults.push(`libvirt says that ${VM} is '${state}' there`);
  const refusal = await writeRefusal(side.host.daemon.at(IMAGE));
  if (refusal !== '') faults.push(`its image cannot be written: ${refusal}`);
  if (existsSync(other.host.daemon.below(IMAGE)) && (await writeRefusal(other.host.daemon.at(IMAGE))) === '')
    faults.push('the image of the other host can be written');
  await side.console.acknowledges(ENOUGH);
  await side.console.finish();
  const lines = [...cloud.source.console.lines, ...(side === cloud.source ? [] : side.console.lines)];
  return [
    ...faults,
    ...consoleFaults(lines),
    ...(await recordFaults(lines, [side.host.daemon.below(IMAGE)], cloud.workload)),
  ];
};

/** The scheduler moves the VM; where `interrupted`, it is killed while libvirt does it, and another one goes on. */
const moved = async (t: Teardown, run: number, interrupted: boolean): Promise<string[]> => {
  const cloud = await startCloud(t, run);
  const { source, target, scheduler, client } = cloud;
  await keepRam(source);
  const ready = keepRam(target);
  ready.catch(() => undefined);
  const id = await submit(cloud);
  const faults: string[] = [];
  let connection = client;
  if (interrupted) {
    const runs = join(scheduler.folder, 'queue/runs', id);
    await waitFor(() => target.libvirt.hasMonitor(MONITOR), 'libvirt starts QEMU there', END_MAX_MS);
    await scheduler.kill();
    if (readdirSync(runs).join() !== 'libvirt-1') faults.push(`runs of virsh: ${readdirSync(runs).join()}`);
    await ready;
    await scheduler.restart();
    connection = scheduler.connect(t);
  }
  await ready;
  const task = await ended(connection, id);
  if (task.state !== 'done') return [`the task is ${task.state}: ${task.error?.message}`];
  if ((await source.libvirt.stateOf(VM)) !== '') faults.push('the source still has a definition');
  if (!/Persistent: +yes/.test(await target.libvirt.virsh('dominfo', VM)))
    faults.push('the target has no definition');
  return [...faults, ...(await faultsOf(cloud, target))];
};

/** Without a scheduler: the commands of docs/HYPERVISORS.md, and what libvirt says without `--unsafe`. */
const movedByHand = async (t: Teardown, run: number): Promise<string[]> => {
  const cloud = await startCloud(t, run);
  const { source, target } = cloud;
  await keepRam(source);
  const to = target.host.daemon.dataAddress;
  const copied = await source.host.daemon.cli(['migrate', IMAGE, '--to', to, '--until', 'in-sync']);
  if (copied.code !== 0) return [`migratefs migrate: ${copied.stderr}`];
  const uris = ['--desturi', target.libvirt.uri, '--migrateuri', `tcp://${target.name}`];
  const migrate = ['migrate', '--live', '--p2p', '--abort-on-error', '--persistent', '--undefinesource'];
  const refused = await source.libvirt.virsh(...migrate, '--domain', VM, ...uris).catch(String);
  const faults = /Unsafe migration/.test(refused) ? [] : [`without --unsafe: ${refused}`];
  const ready = keepRam(target);
  ready.catch(() => undefined);
  await source.libvirt.virsh(...migrate, '--unsafe', '--domain', VM, ...uris);
  await ready;
  await target.console.acknowledges(1);
  const { stdout } = await source.host.daemon.cli(['images', IMAGE, '--json']);
  if (!/fenced/.test(stdout)) faults.push(`migratefs images at the source: ${stdout}`);
  return [...faults, ...(await faultsOf(cloud, target))];
};

/** The VM stays, whatever was begun at the target is gone, and the task says why. */
const stays = async (
  t: Teardown,
  run: number,
  disturb: (cloud: Cloud, id: string) => Promise<unknown>,
  expected: (task: TaskSnapshot) => boolean,
): Promise<string[]> => {
  const cloud = await startCloud(t, run);
  await sendSlowly(cloud);
  const id = await submit(cloud);
  await waitFor(() => isSending(cloud), 'libvirt sends the VM', END_MAX_MS);
  await disturb(cloud, id);
  const task = await ended(cloud.client, id);
  const faults = expected(task) ? [] : [`the task is ${task.state}: ${task.error?.message ?? task.reason}`];
  if (existsSync(cloud.target.host.daemon.below(IMAGE))) faults.push('the target keeps an image');
  return [...faults, ...(await faultsOf(cloud, cloud.source))];
};

export interface LibvirtCase {
  readonly name: string;
  /** Resolves with what is wrong: nothing, if all is well. */
  run(t: Teardown, run: number): Promise<readonly string[]>;
}

export const LIBVIRT_CASES: readonly LibvirtCase[] = [
  { name: 'libvirt: moved', run: (t, run) => moved(t, run, false) },
  { name: 'libvirt: scheduler killed meanwhile', run: (t, run) => moved(t, run, true) },
  { name: 'libvirt: moved by hand', run: movedByHand },
  {
    name: 'libvirt: cancelled while RAM is sent',
    run: (t, run) =>
      stays(
        t,
        run,
        async ({ client, target }, id) => {
          await client.cancel(id);
          await ended(client, id);
          if ((await target.libvirt.stateOf(VM)) !== '') throw new Error('the target keeps a domain');
        },
        ({ state }) => state === 'cancelled',
      ),
  },
  {
    name: 'libvirt: the target loses power while RAM is sent',
    run: (t, run) =>
      stays(
        t,
        run,
        ({ target }) => target.libvirt.kill(),
        ({ state, error }) => state === 'failed' && /did not move vm7/.test(error?.message ?? ''),
      ),
  },
];
