import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { startPair } from '../test/support/pair.js';
import type { Teardown } from '../test/support/scratch.js';
import { keepCpusAwake } from './awake-cpus.js';
import { fillImage } from './image.js';
import { bulkLines, resentLines, scatteredLines } from './migrate-copy.js';
import { cutoverLines, durableLines, guestLines, isolationLines, ownDiskLines } from './migrate-guest.js';
import { IMAGE, type Line, MB, type MigrateBenchOptions, type Setting } from './migrate-setting.js';
import { residentBytes } from './process-figures.js';
import { fixed, formatTable, passes, verdictCells } from './table.js';
import { smoothLines, throttleLines } from './throttle-section.js';

const memoryLines = ({ pair }: Setting, when: string): readonly Line[] =>
  [pair.source, pair.target].map(({ daemon }, index) => ({
    what: `memory of the ${index === 0 ? 'source' : 'target'} daemon, ${when}, MB`,
    value: `${fixed(residentBytes(daemon.pid) / MB, 0)} MB`,
    ...(when === 'idle'
      ? { verdict: { ratio: residentBytes(daemon.pid) / MB, bar: 150, sense: 'at-most' as const } }
      : {}),
  }));

type Sections = Readonly<Record<string, (setting: Setting) => Promise<readonly Line[]>>>;

const SECTIONS: Sections = {
  bulk: bulkLines,
  scattered: scatteredLines,
  resent: resentLines,
  guest: guestLines,
  durable: durableLines,
  'own-disk': ownDiskLines,
  isolation: isolationLines,
  cutover: cutoverLines,
};

/** What runs by itself: it takes long. */
export const THROTTLE_SECTIONS: Sections = { throttle: throttleLines, smooth: smoothLines };

/** `npm run bench -- migrate`: two daemons, one machine. Resolves to the number of bars missed. */
export const benchMigrate = async (
  options: MigrateBenchOptions,
  t: Teardown,
  sections: Sections = SECTIONS,
): Promise<number> => {
  if (options.awake) await keepCpusAwake(t);
  const folder = mkdtempSync(join(options.dir, 'mfs-bench-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const side = (name: string): { imageDir: string; mountpoint: string } => ({
    imageDir: join(folder, name, 'images'),
    mountpoint: join(folder, name, 'mount'),
  });
  const pair = await startPair(t, { source: side('source'), target: side('target') });
  const setting: Setting = { pair, folder, options };
  const lines: Line[] = [...memoryLines(setting, 'idle')];
  await fillImage(pair.source.daemon.below(IMAGE), options.size);
  for (const [name, section] of Object.entries(sections)) {
    if (!name.includes(options.only)) continue;
    process.stderr.write(`${name} ...\n`);
    lines.push(...(await section(setting)));
  }
  lines.push(...memoryLines(setting, 'after all this'));
  console.log(
    `image of ${options.size / 2 ** 20} MiB in page cache, loopback, medians of ${options.rounds} rounds${options.awake ? ', CPUs kept from halting' : ''}\n`,
  );
  console.log(
    formatTable(
      ['what', 'measured', 'ours/it', 'bar', ''],
      lines.map(({ what, value, verdict }) => [
        what,
        value,
        ...(verdict ? verdictCells(verdict) : ['', '', '']),
      ]),
    ),
  );
  const missed = lines.filter(({ verdict }) => verdict && !passes(verdict)).length;
  console.log(`\n${missed} bars missed`);
  return missed;
};
