import { chmodSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { LibvirtDriver, type LibvirtDriverOptions } from '../../src/broker/hypervisor/libvirt-driver.js';
import type { MoveJob } from '../../src/broker/scheduler/hypervisor-driver.js';
import { type Clock, systemClock } from '../../src/leaves/clock.js';
import { millis } from '../../src/leaves/units.js';
import { scratchDir } from '../support/scratch.js';
import { STUB_UUID, StubVirsh } from '../support/stub-virsh.js';
import { waitFor } from '../support/wait-for.js';

const never = (): AbortSignal => new AbortController().signal;

const FASTER = 20;
const fastClock: Clock = {
  now: () => millis(systemClock.now() * FASTER),
  wall: () => systemClock.wall(),
  after: (delay, callback) => systemClock.after(millis(delay / FASTER), callback),
};

const setUp = (t: Test, options: Partial<LibvirtDriverOptions> = {}) => {
  const folder = scratchDir(t, 'libvirt');
  const stub = new StubVirsh(folder);
  const said: { message: string; fields: object }[] = [];
  const make = (more: Partial<LibvirtDriverOptions> = {}): LibvirtDriver =>
    new LibvirtDriver({
      ...{ source: 'qemu+ssh://{source}/system', target: 'qemu+ssh://{target}/system', domain: '{vm}' },
      ...{ peer: 'qemu+tls://{target}/system', options: [], otherDisks: false, virsh: stub.program },
      ...{ timeout: millis(60_000), folder: join(folder, 'runs'), clock: systemClock, env: process.env },
      settleMax: millis(300),
      log: (_, message, fields) => said.push({ message, fields: fields ?? {} }),
      ...options,
      ...more,
    });
  const job: MoveJob = {
    ...{ task: 't1', attempt: 1, vm: 'vm7', images: ['vm7/disk.raw'], source: 'a', target: 'b' },
    migrationId: 'm',
  };
  return { folder, stub, said, make, driver: make(), job };
};

const FLAGS = '--live --p2p --unsafe --abort-on-error --persistent --undefinesource';
const MIGRATE = `a migrate ${FLAGS} --domain ${STUB_UUID} --desturi qemu+tls://b/system`;

const begun = (stub: StubVirsh): Promise<void> =>
  waitFor(
    () => stub.get('a/job') !== undefined && stub.get('b/domain') !== undefined,
    'the VM is being sent',
  );

/** A move under way; `cancel` ends the waiting for it. */
const beginMove = async ({ driver, job, stub }: ReturnType<typeof setUp>) => {
  const waiting = new AbortController();
  const moving = driver.move(job, waiting.signal);
  moving.catch(() => undefined);
  await begun(stub);
  return { moving, cancel: () => waiting.abort(new Error('cancelled')) };
};

t.test('virsh is told once, with these flags, and the figures are reported', async (t) => {
  const { driver, job, stub, said } = setUp(t, {
    ...{ downtime: millis(250), migrateUri: 'tcp://{target}:49152', options: ['--tls'] },
  });
  stub.set('finish', '');
  await driver.move(job, never());
  t.same(stub.told, [
    `a migrate-setmaxdowntime ${STUB_UUID} 250`,
    `a migrate ${FLAGS} --tls --domain ${STUB_UUID} --desturi qemu+tls://b/system --migrateuri tcp://b:49152`,
  ]);
  t.equal(stub.get('b/domain'), 'running (migrated)');
  t.same(said.at(-1), {
    message: 'libvirt has moved the VM',
    fields: { task: 't1', vm: 'vm7', downtime: 70 },
  });
  await driver.move(job, never());
  t.equal(await driver.stop(job), 'moved');
  await t.rejects(driver.rollBack(job, never()), { code: 'ABORTED', message: /runs on b already/ });
  await driver.move({ ...job, attempt: 2 }, never());
  t.equal(stub.told.length, 2, 'nothing was done again');
  t.equal(stub.get('b/domain'), 'running (migrated)', 'what runs is not discarded');
});

t.test('a transient domain gets no definition, and a name that is a number is no id', async (t) => {
  const { driver, job, stub } = setUp(t);
  stub.set('persistent', 'no');
  stub.set('finish', '');
  await driver.move(job, never());
  t.notMatch(stub.told.at(-1), /--persistent|--undefinesource/);
  await t.rejects(driver.move({ ...job, task: 't2', vm: '7' }, never()), {
    code: 'FAILED_PRECONDITION',
    message: /7 is on a: not defined, on b: not defined/,
  });
});

t.test('how far it is can be watched, and how long the VM stood still', async (t) => {
  const { driver, job, stub } = setUp(t);
  const seen: object[] = [];
  const moving = driver.move(job, never(), (progress) => seen.push(progress));
  await waitFor(() => seen.length > 0, 'the first report');
  stub.set('finish', '');
  await moving;
  t.same([seen[0], seen.at(-1)], [{ ramSent: 4096, ramLeft: 8192 }, { vmDowntime: 70 }]);
});

t.test('a scheduler that is killed meanwhile: the next one waits for the same virsh', async (t) => {
  const world = setUp(t);
  const { stub, job, make } = world;
  const { moving, cancel } = await beginMove(world);
  cancel();
  await t.rejects(moving, { message: 'cancelled' });
  const next = make().move(job, never());
  stub.set('finish', '');
  await next;
  t.same(stub.told, [MIGRATE]);
  t.equal(stub.get('b/domain'), 'running (migrated)');
});

t.test('a virsh whose connection breaks: the source goes on, and is waited for', async (t) => {
  const world = setUp(t);
  world.stub.set('migrate', 'lost');
  const { moving } = await beginMove(world);
  world.stub.set('finish', '');
  await moving;
  t.same(world.stub.told, [MIGRATE]);
});

t.test('where nothing is known of a run of virsh, what the source does is waited for', async (t) => {
  const world = setUp(t);
  const { moving, cancel } = await beginMove(world);
  cancel();
  await t.rejects(moving, { message: 'cancelled' });
  rmSync(join(world.folder, 'runs'), { recursive: true });
  const asked = world.stub.asked.length;
  const next = world.make().move(world.job, never());
  next.catch(() => undefined);
  // Longer than libvirt is given to clear up.
  const rounds = 6;
  const looks = (): number => world.stub.asked.slice(asked).filter((line) => line === 'a domjobinfo').length;
  await waitFor(() => looks() > rounds || world.stub.told.length > 1, 'it is looked at again and again');
  world.stub.set('finish', '');
  await next;
  t.same(world.stub.told, [MIGRATE], 'not begun again');
});

t.test('a move that is stopped is aborted at the source, and leaves the VM there', async (t) => {
  const world = setUp(t);
  const { driver, job, stub } = world;
  const { moving, cancel } = await beginMove(world);
  cancel();
  await t.rejects(moving, { message: 'cancelled' });
  t.equal(await driver.stop(job), 'not-moved');
  await driver.rollBack(job, never());
  t.equal(stub.told[1], `a domjobabort ${STUB_UUID}`);
  t.notOk(
    stub.told.some((line) => /destroy|resume/.test(line)),
    'libvirt has cleared up itself',
  );
  t.same([stub.get('a/domain'), stub.get('b/domain')], ['running (booted)', undefined]);
  await t.rejects(driver.move(job, never()), /did not move vm7/, 'the same attempt is not begun again');
  stub.set('finish', '');
  await driver.move({ ...job, attempt: 2 }, never());
  t.equal(stub.get('b/domain'), 'running (migrated)', 'the next attempt succeeds');
});

t.test('a move that was never begun cannot begin after it was stopped', async (t) => {
  const { driver, job, stub } = setUp(t);
  t.equal(await driver.stop(job), 'not-moved');
  await t.rejects(driver.move(job, never()), { code: 'ABORTED' });
  t.same(stub.told, []);
});

t.test('what was too late to be stopped has moved', async (t) => {
  const world = setUp(t);
  const { driver, job, stub } = world;
  stub.set('stubborn', '');
  const { moving, cancel } = await beginMove(world);
  cancel();
  await t.rejects(moving, { message: 'cancelled' });
  const stopping = driver.stop(job);
  await waitFor(() => stub.told.length > 1, 'it is told to end');
  stub.set('finish', '');
  t.equal(await stopping, 'moved');
});

t.test('one that takes too long is aborted, and the VM stays', async (t) => {
  const { job, stub, make } = setUp(t);
  const hasty = make({ timeout: millis(1500) });
  await t.rejects(hasty.move(job, never()), {
    code: 'DEADLINE_EXCEEDED',
    message: /within 1\.5 s and was told to give up: .*--auto-converge/,
  });
  t.same([stub.get('a/domain'), stub.get('b/domain')], ['running (booted)', undefined]);
});

t.test('what libvirt refuses is passed on in one line, with what to do', async (t) => {
  const { driver, job, stub } = setUp(t);
  const refusals: [string, RegExp][] = [
    [
      "unable to connect to server at 'b:16514': Connection refused",
      /did not move vm7: unable to connect .*: libvirt on the source itself connects to the target/,
    ],
    [
      'Cannot access storage file: No such file or directory',
      /paths of all disks must be the same on both hosts/,
    ],
    ["address resolution failed for 'b': Name or service not known", /say with migrate-uri/],
    ['internal error: something else', /did not move vm7: internal error: something else$/],
  ];
  for (const [index, [refusal, message]] of refusals.entries()) {
    stub.set('migrate', refusal);
    const attempt = { ...job, attempt: index + 1 };
    await t.rejects(driver.move(attempt, never()), { code: 'ABORTED', message });
  }
  t.equal(await driver.stop(job), 'not-moved');
  await driver.rollBack(job, never());
  t.equal(stub.get('a/domain'), 'running (booted)');
});

t.test('G1: a VM that writes to a disk which does not move is left alone', async (t) => {
  const { driver, job, stub, make } = setUp(t);
  const other = ' file   disk   vdb   /srv/other.raw';
  const harmless = [
    ' file      cdrom   sda   /srv/install.iso',
    ' network   disk    vdc   pool/volume',
    ' file      disk    vda   /var/lib/images/vm7/disk.raw',
  ].join('\n');
  for (const disks of [
    other,
    ' block   lun   sdb   /dev/sdb',
    ' file   disk   vda   /images/xvm7/disk.raw',
  ]) {
    stub.set('disks', `${harmless}\n${disks}\n`);
    await t.rejects(driver.move(job, never()), {
      code: 'FAILED_PRECONDITION',
      message: /is not among the images of the task/,
    });
  }
  t.same(stub.told, []);
  stub.set('finish', '');
  await make({ otherDisks: true }).move(job, never());
  t.equal(stub.told.length, 1);
});

t.test('a VM that is switched off, and hosts that cannot be reached, are said so', async (t) => {
  const { job, stub, driver, make } = setUp(t);
  stub.set('a/domain', 'shut off (shutdown)');
  await t.rejects(driver.move(job, never()), {
    code: 'FAILED_PRECONDITION',
    message: /on a: switched off \(shutdown\), on b: not defined: .* driver 'none'/,
  });
  stub.set('a/domain', 'running (booted)');
  stub.set('a/down', '');
  await t.rejects(driver.move(job, never()), {
    code: 'UNAVAILABLE',
    message: /libvirt on a cannot be reached: .*Connection refused/,
  });
  stub.set('b/domain', 'running (migrated)');
  await driver.move(job, never());
  t.same(stub.told, [], 'it runs there already');
  stub.set('a/down', undefined);
  stub.set('b/domain', undefined);
  stub.set('a/hangs', '');
  await t.rejects(make({ clock: fastClock }).move(job, never()), {
    code: 'UNAVAILABLE',
    message: /does not answer within 20 s/,
  });
});

t.test('a VM that is only defined on the source is not there', async (t) => {
  for (const [source, then] of [
    ['shut off (shutdown)', undefined],
    ['running (booted)', 'shut off (crashed)'],
  ] as const) {
    const { job, stub, driver } = setUp(t);
    const isSo = (): void => {
      stub.set('a/domain', source);
      stub.set('a/then', then);
    };
    isSo();
    t.equal(await driver.stop(job), 'not-moved');
    isSo();
    await t.rejects(driver.rollBack(job, never()), { code: 'ABORTED', message: /runs on neither host/ });
    stub.set('b/domain', 'running (migrated)');
    isSo();
    t.equal(await driver.stop({ ...job, attempt: 2 }), 'moved');
    isSo();
    await driver.move({ ...job, attempt: 3 }, never());
    t.same(stub.told, []);
  }
});

t.test('a guest that switches itself off while it is sent has not moved', async (t) => {
  const world = setUp(t);
  const { driver, job, stub } = world;
  const { moving } = await beginMove(world);
  stub.set('poweroff', '');
  await t.rejects(moving, {
    code: 'ABORTED',
    message: /domain is not running \(now on a: switched off \(shutdown\), on b: not defined\)/,
  });
  t.equal(await driver.stop(job), 'not-moved');
  await t.rejects(driver.rollBack(job, never()), { message: /runs on neither host: start it on a/ });
});

t.test('without virsh the error says what to install', async (t) => {
  const { job, stub, make } = setUp(t);
  chmodSync(stub.program, 0o644);
  await t.rejects(make().move(job, never()), {
    message: /cannot run .*virsh: .*EACCES.* install the libvirt client/,
  });
});

t.test('G3: where nobody can know who has the VM, nothing is resumed or discarded', async (t) => {
  const { job, stub, driver } = setUp(t);
  const unclear: [string | undefined, string | undefined, string?][] = [
    ['running (booted)', 'running (migrated)'],
    ['paused (migrating)', 'paused (migrating)'],
    ['paused (migrating)', undefined, 'b/down'],
    [undefined, undefined, 'b/down'],
    ['running (booted)', undefined, 'a/down'],
  ];
  for (const [index, [source, target, down]] of unclear.entries()) {
    stub.set('a/domain', source);
    stub.set('b/domain', target);
    if (down) stub.set(down, '');
    const attempt = { ...job, attempt: index + 1 };
    await t.rejects(driver.stop(attempt), { message: /nobody knows where vm7 has to run/ });
    await t.rejects(driver.rollBack(attempt, never()), { message: /nobody knows where vm7 has to run/ });
    if (down) stub.set(down, undefined);
  }
  t.same(stub.told, []);
});

t.test(
  'what libvirt has left after a failure is cleared up: first the target, then the source',
  async (t) => {
    const { job, stub, driver } = setUp(t);
    stub.set('b/domain', 'paused (starting up)');
    t.equal(await driver.stop(job), 'not-moved');
    await driver.rollBack(job, never());
    t.same(stub.told, [`b destroy ${STUB_UUID}`]);
    stub.forgetWhatItWasTold();
    stub.set('a/domain', 'paused (migrating)');
    await driver.rollBack(job, never());
    t.same(stub.told, [`a resume ${STUB_UUID}`]);
    stub.forgetWhatItWasTold();
    stub.set('a/domain', 'paused (user)');
    await driver.rollBack(job, never());
    t.same(stub.told, [], 'what its user has stopped stays so');
  },
);

t.test('a task that is forgotten leaves nothing', async (t) => {
  const { driver, job, stub, folder } = setUp(t);
  stub.set('finish', '');
  await driver.move(job, never());
  t.ok(existsSync(join(folder, 'runs/t1')));
  driver.forget('t1');
  t.notOk(existsSync(join(folder, 'runs/t1')));
});
