/**
 * `npm run test:vm -- [--rounds 20] [--only TEXT] [--seed N]`: real virtual machines that move live, in every combination
 * of image format, cache mode, number of disks and write rate, then under libvirt where it is installed, and then the usual
 * one again and again.
 */
import { Command } from 'commander';
import { formatTable } from '../../bench/table.js';
import { withCleanup } from '../support/cleanup.js';
import { seedFromEnvironment } from '../support/random.js';
import { libvirtMissing } from './libvirt-host.js';
import { LIBVIRT_CASES } from './libvirt-migration.js';
import { DEFAULT_CASE, runVmCase, type VmCase, type VmReport } from './live-migration.js';

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const CASES: readonly VmCase[] = (['raw', 'qcow2'] as const).flatMap((format) =>
  (['none', 'writeback'] as const).flatMap((cache) =>
    [1, 2].flatMap((disks) =>
      [5e6, 20e6].map((rate) => ({
        name: `${format}, cache=${cache}, ${disks} disk${disks > 1 ? 's' : ''}, ${rate / 1e6} MB/s`,
        ...{ format, cache, disks, rate },
        namespaces: true,
      })),
    ),
  ),
);

const { rounds, only, seed } = new Command('test:vm')
  .option('--rounds <n>', 'how often the usual case is run after the matrix', Number, 20)
  .option('--only <text>', 'cases whose name holds this text; `again` are the repetitions', '')
  .option('--seed <n>', 'replays a run', Number, seedFromEnvironment())
  .parse()
  .opts<{ rounds: number; only: string; seed: number }>();

const cases = [
  ...CASES,
  ...Array.from({ length: rounds }, (_, index) => ({ ...DEFAULT_CASE, name: `again ${index + 1}` })),
].filter(({ name }) => name.includes(only));

const megabytes = (rate: number): string => (rate / 1e6).toFixed(1);

const rowOf = (
  name: string,
  { rates, downtime, silence, stall, copySeconds, faults }: VmReport,
): string[] => [
  name,
  ...[rates.before, rates.copying, rates.inSync, rates.after].map(megabytes),
  copySeconds.toFixed(1),
  ...[downtime, silence, stall].map((ms) => ms.toFixed(0)),
  String(faults.length),
];

say(`seed ${seed}`);
const rows: string[][] = [];
let failures = 0;
let libvirtRuns = 0;
for (const [index, vmCase] of cases.entries()) {
  try {
    const report = await withCleanup((t) => runVmCase(t, vmCase, seed + index));
    rows.push(rowOf(vmCase.name, report));
    say(`${report.faults.length === 0 ? 'ok  ' : 'FAIL'} ${vmCase.name}`);
    for (const fault of report.faults) say(`       ${fault}`);
    if (report.faults.length > 0) failures += 1;
  } catch (error) {
    failures += 1;
    say(`FAIL ${vmCase.name}: ${(error as Error).message}`);
  }
}
const libvirtCases = LIBVIRT_CASES.filter(({ name }) => name.includes(only));
const missing = libvirtCases.length > 0 ? libvirtMissing() : undefined;
if (missing !== undefined) say(`left out ${libvirtCases.length} cases of libvirt: ${missing}`);
for (const [index, { name, run }] of (missing === undefined ? libvirtCases : []).entries()) {
  const faults = await withCleanup((t) => run(t, seed + index)).catch((error: Error) => [error.message]);
  say(`${faults.length === 0 ? 'ok  ' : 'FAIL'} ${name}`);
  for (const fault of faults) say(`       ${fault}`);
  if (faults.length > 0) failures += 1;
  libvirtRuns += 1;
}
say(
  '\nMB/s that the guest wrote; seconds until in sync; milliseconds of downtime (QEMU), silence, first write',
);
say(
  formatTable(
    ['case', 'before', 'copying', 'in sync', 'after', 'copy', 'down', 'silent', 'stall', 'faults'],
    rows,
  ),
);
const runs = cases.length + libvirtRuns;
say(`${runs} runs, ${failures} failed`);
process.exitCode = failures === 0 && runs > 0 ? 0 : 1;
