import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fc from 'fast-check';
import t from 'tap';
import { progressLine } from '../../src/cli/render.js';
import { barLine, LineReporter } from '../../src/cli/reporter.js';
import type { Clock } from '../../src/leaves/clock.js';
import type { MigrationSnapshot, MigrationState } from '../../src/leaves/migration.js';
import { MIGRATION_EDGES } from '../../src/leaves/migration.js';
import { bytes, bytesPerSecond, millis } from '../../src/leaves/units.js';
import { controlFixture } from '../support/control-fixture.js';
import { snapshotExample } from '../support/fake-migration-control.js';
import { CLI } from '../support/run.js';
import { guardProcess, releaseProcess } from '../support/scratch.js';

const NOW = millis(snapshotExample.deadline! - 600_000);

t.test('the bar shows phase, share, rate, dirty, ETA and deadline margin', async (t) => {
  t.equal(
    barLine(snapshotExample, NOW, 120),
    'bulk copy    [#############.............]  50%  118 MB/s  dirty 64.0 MiB  ETA 5.0 s (4.0 to 7.0)  ' +
      'deadline margin 9m55s',
  );
});

t.test('where the terminal is narrow, limits and then the dirty bytes make way for the bar', async (t) => {
  const limited = { ...snapshotExample, netLimit: bytesPerSecond(2e8), diskLimit: bytesPerSecond(1e7) };
  t.match(
    barLine(limited, NOW, 140),
    /\[#+\.+\] .* of 200 MB\/s {2}dirty 64\.0 MiB {2}disk 10\.0 MB\/s {2}ETA/,
  );
  t.match(
    barLine(limited, NOW, 80),
    /\[#+\.+\] +50% {2}118 MB\/s {2}dirty 64\.0 MiB {2}ETA 5\.0 s {2}margin 9m55s$/,
  );
  t.match(barLine(limited, NOW, 72), /\[#+\.+\] +50% {2}118 MB\/s {2}ETA 5\.0 s {2}margin 9m55s$/);
  t.match(barLine(limited, NOW, 40), /^bulk copy 50% {2}118 MB\/s/);
});

t.test('the band of the estimate has units where they differ, and says where it has no end', async (t) => {
  const { etaHigh: _none, ...unbounded } = snapshotExample;
  t.match(progressLine(unbounded, NOW), /, ETA 5\.0 s \(4\.0 s or more\), deadline margin 9m55s$/);
  const long = { ...snapshotExample, eta: millis(55_000), etaLow: millis(48_000), etaHigh: millis(65_000) };
  t.match(progressLine(long, NOW), /, ETA 55 s \(48 s to 1m5s\), deadline margin 9m5s$/);
});

t.test('a deadline that will be missed says by how much', async (t) => {
  t.match(barLine({ ...snapshotExample, eta: millis(660_000) }, NOW, 120), /late by 1m$/);
});

t.test('no line is wider than the terminal, and 100% means in sync', async () => {
  const states = Object.keys(MIGRATION_EDGES) as MigrationState[];
  fc.assert(
    fc.property(
      fc.constantFrom(...states),
      fc.integer({ min: 0, max: 2 ** 50 }),
      fc.integer({ min: 0, max: 2 ** 50 }),
      fc.integer({ min: 0, max: 2 ** 40 }),
      fc.integer({ min: 20, max: 300 }),
      (state, total, left, rate, columns) => {
        const snapshot: MigrationSnapshot = {
          ...snapshotExample,
          state,
          bytesTotal: bytes(total),
          bytesLeft: bytes(left),
          netRate: rate,
        };
        const line = barLine(snapshot, NOW, columns);
        const inSync = ['mirroring', 'cutover', 'completed'].includes(state);
        return line.length < columns && (!line.includes('100%') || inSync || left === 0);
      },
    ),
  );
});

t.test('piped lines come at each change of phase and every five seconds between', async (t) => {
  let now = 0;
  const clock: Clock = { now: () => millis(now), wall: () => millis(now), after: () => () => {} };
  const lines: string[] = [];
  const reporter = new LineReporter(clock, true, (line) => lines.push(line));
  for (now = 0; now <= 12_000; now += 500) reporter.show(snapshotExample);
  now = 12_500;
  reporter.show({ ...snapshotExample, id: 'm2' });
  reporter.show({ ...snapshotExample, state: 'mirroring' });
  t.match(lines, [
    /^1970-01-01T00:00:00.000Z m1 bulk copy/,
    /^1970-01-01T00:00:05.000Z m1 bulk copy/,
    /^1970-01-01T00:00:10.000Z m1 bulk copy/,
    /^1970-01-01T00:00:12.500Z m2 bulk copy/,
    /^1970-01-01T00:00:12.500Z m1 in sync/,
  ]);
  t.equal(lines.length, 5);
});

/** `migratefs migrate` on a pseudo terminal, as script(1) makes one. */
const onTerminal = (address: string) => {
  // `exec`: a shell that stayed would get the Ctrl-C too, and dash then answers 130 for its child.
  const command = `exec ${process.execPath} ${CLI} migrate a --to b:1 --server ${address}`;
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  guardProcess(child.pid!);
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  let ended = false;
  const closed = once(child, 'close').then(([code]) => {
    releaseProcess(child.pid!);
    ended = true;
    return code as number | null;
  });
  return {
    child,
    closed,
    output: () => output,
    saw: async (text: RegExp): Promise<void> => {
      while (!text.test(output)) {
        if (ended) throw new Error(`ended without ${text}: ${output}`);
        await Promise.race([once(child.stdout, 'data'), closed]);
      }
    },
  };
};

t.test(
  'on a terminal the bar is redrawn in place, the hint stays above it, and the cursor comes back',
  async (t) => {
    await using fixture = await controlFixture();
    const { control } = fixture;
    const { closed, output, saw } = onTerminal(fixture.server.address);
    await saw(/preparing/);
    control.change('m1', { state: 'bulk-copy' });
    await saw(/bulk copy +\[#+\.+\] +50% {2}118 MB\/s {2}dirty 64\.0 MiB/);
    control.change('m1', { state: 'mirroring', bytesLeft: bytes(0) });
    await saw(/in sync: resume the VM on the target, or `migratefs cutover m1`\r\n/);
    await saw(/in sync +\[#+\] +100%/);
    control.change('m1', { state: 'completed', endedAt: millis(1_800_000_060_000) });
    t.equal(await closed, 0);
    const text = output();
    t.match(text, /completed in 1m: 600 MiB sent .*\r\n$/);
    t.ok(text.lastIndexOf('\u001b[?25h') > text.lastIndexOf('\u001b[?25l'), 'the cursor is shown again');
    t.ok(text.split('\n').length < 8, 'redrawn in place, not scrolled');
  },
);

t.test('the Ctrl-C key cancels, and leaves the terminal in order', async (t) => {
  await using fixture = await controlFixture();
  const { child, closed, output, saw } = onTerminal(fixture.server.address);
  await saw(/preparing/);
  fixture.control.change('m1', { state: 'bulk-copy' });
  await saw(/bulk copy/);
  child.stdin.write('\u0003');
  t.equal(await closed, 1);
  const text = output();
  t.match(text, /cancelling m1; Ctrl-C again leaves without waiting\r\n/);
  t.match(text, /migratefs: migration m1 was cancelled\r\n$/);
  t.ok(text.lastIndexOf('\u001b[?25h') > text.lastIndexOf('\u001b[?25l'), 'the cursor is shown again');
  t.equal(fixture.control.migrations.get('m1')?.state, 'cancelled');
});
