/** A real scheduler has two real QEMUs move a VM; the VM is a firmware without an operating system, and writes nothing. */
import { existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Monitor } from '../../src/broker/hypervisor/monitor.js';
import { systemClock } from '../../src/leaves/clock.js';
import { isTaskFinal, type TaskSnapshot } from '../../src/leaves/scheduler.js';
import { MiB, millis } from '../../src/leaves/units.js';
import { writeRefusal } from '../support/cutover.js';
import { runOk } from '../support/run.js';
import { startCloud } from '../support/scheduled-cloud.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';

const IMAGE = 'vm7.raw';

const isLiving = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const setUp = async (t: Test, start: (command: string) => string) => {
  const folder = scratchDir(t, 'scheduled');
  const cloud = await startCloud(t, {
    hosts: 2,
    config: {
      drivers: {
        qemu: {
          ...{ type: 'qemu', source: `unix:${folder}/{source}`, target: `unix:${folder}/{target}` },
          ...{ migrate: `unix:${folder}/{vm}`, start: ['/bin/sh', join(folder, 'start')] },
        },
      },
      'default-driver': 'qemu',
    },
  });
  const daemons = cloud.names.map((name) => cloud.hosts.get(name)!.daemon);
  const qemu = (host: number): string[] => [
    ...['-accel', 'tcg', '-machine', 'pc', '-m', '64M', '-nodefaults', '-display', 'none', '-daemonize'],
    ...['-drive', `file=${daemons[host]!.at(IMAGE)},if=virtio,format=raw,cache=none`],
    ...['-qmp', `unix:${folder}/${cloud.names[host]},server=on,wait=off`],
    ...['-pidfile', join(folder, `pid${host}`)],
  ];
  const pid = (host: number): number => Number(readFileSync(join(folder, `pid${host}`), 'utf8'));
  t.teardown(async () => {
    for (const host of [0, 1]) {
      if (!existsSync(join(folder, `pid${host}`))) continue;
      const number = pid(host);
      if (isLiving(number)) process.kill(number, 'SIGKILL');
      await waitFor(() => !isLiving(number), 'QEMU ends');
    }
  });
  writeFileSync(daemons[0]!.below(IMAGE), '');
  truncateSync(daemons[0]!.below(IMAGE), 8 * MiB);
  writeFileSync(join(folder, 'start'), start(`qemu-system-x86_64 ${qemu(1).join(' ')} -incoming defer`));
  await runOk('qemu-system-x86_64', qemu(0));
  const source = pid(0);
  const client = cloud.scheduler.connect(t);
  const { id } = await client.submit({
    ...{ vm: 'vm7', images: [IMAGE], source: 'host-0', target: 'host-1', priority: 0 },
    ...{ important: false, writeRate: 0, insist: false },
  });
  let task: TaskSnapshot;
  await waitFor(
    async () => {
      task = await client.get(id);
      return isTaskFinal(task.state);
    },
    'the task ends',
    60_000,
  );
  const runState = async (host: number): Promise<string> => {
    const options = { clock: systemClock, answerMax: millis(10_000) };
    using monitor = await Monitor.open(`unix:${folder}/${cloud.names[host]}`, 'it', options);
    return await monitor.runState();
  };
  return { task: task!, daemons, runState, source, folder };
};

t.test('the VM runs on the target, which owns its image, and the QEMU on the source is gone', async (t) => {
  const { task, daemons, runState, source } = await setUp(t, (command) => `exec ${command}\n`);
  t.equal(task.state, 'done', task.reason);
  t.equal(await runState(1), 'running');
  await waitFor(() => !isLiving(source), 'QEMU on the source ends');
  t.equal(await writeRefusal(daemons[0]!.at(IMAGE)), 'EROFS');
  t.equal(await writeRefusal(daemons[1]!.at(IMAGE)), '');
});

t.test(
  'G4: where the QEMU on the target does not start, the VM stays and nothing is left there',
  async (t) => {
    const { task, daemons, runState } = await setUp(t, () => 'echo "no room" >&2; exit 3\n');
    t.equal(task.state, 'failed');
    t.match(task.error?.message, /ended with status 3 \(no room\)/);
    t.equal(await runState(0), 'running');
    t.equal(await writeRefusal(daemons[0]!.at(IMAGE)), '');
    // The cancel is answered first; the replica is removed after it.
    await waitFor(() => !existsSync(daemons[1]!.below(IMAGE)), 'the replica is gone');
  },
);
