/** `npm run bench -- fs|migrate|throttle|estimates|vm|start [options]`: measurements against peers in the same run. Not a test. */
import { Command, InvalidArgumentError } from 'commander';
import { withCleanup } from '../test/support/cleanup.js';
import { CONTENDERS, type ContenderName } from './contender.js';
import { benchEstimates } from './estimate-bench.js';
import { benchFs } from './fs-bench.js';
import { benchMigrate, THROTTLE_SECTIONS } from './migrate-bench.js';
import { benchStart } from './start-bench.js';
import { benchVm } from './vm-bench.js';
import { MOVERS, type MoverName } from './vm-movers.js';

const MIB = 1024 * 1024;

const count = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('a whole number is needed');
  return value;
};

const namesOf =
  <T extends string>(known: readonly T[]) =>
  (text: string): readonly T[] => {
    const list = text.split(',') as T[];
    const unknown = list.find((name) => !known.includes(name));
    if (unknown !== undefined) throw new InvalidArgumentError(`${unknown} is none of ${known.join(', ')}`);
    return list;
  };

const program = new Command('bench').description(
  'Measures MigrateFS beside its peers, in turn, and prints ratios.',
);

program
  .command('fs')
  .description(
    'an idle mount against bindfs, libfuse passthrough_hp, QEMU, the fuse-native transport, the bare directory',
  )
  .option('--rounds <n>', 'measurements of each cell', count, 5)
  .option('--seconds <n>', 'longest measurement', count, 2)
  .option('--only <text>', 'only rows whose name contains this; also: isolation, metadata', '')
  .option('--size <MiB>', 'size of the image', count, 1024)
  .option('--dir <path>', 'where images are made; tmpfs', '/dev/shm')
  .option('--files <n>', 'files of the metadata rows, 0: none', count, 2000)
  .option('--workers <n>', 'data workers of our daemon', count)
  .option('--who <names>', 'contenders, separated by commas', namesOf<ContenderName>(CONTENDERS), CONTENDERS)
  .option('--awake', 'keep the CPUs from halting while nothing runs, with loops of the lowest priority')
  .option('--json <file>', 'writes everything measured to this file')
  .option(
    '--passthrough-hp <path>',
    'libfuse example program (environment: PASSTHROUGH_HP)',
    process.env['PASSTHROUGH_HP'],
  )
  .action(async (options) => {
    await withCleanup((cleanup) =>
      benchFs({ ...options, size: options.size * MIB, contenders: options.who }, cleanup),
    );
  });

program
  .command('migrate')
  .description('migrations between two daemons on this machine, against plain socket copies and QEMU')
  .option('--rounds <n>', 'measurements of each figure', count, 5)
  .option('--seconds <n>', 'length of a fio measurement', count, 2)
  .option('--only <section>', 'bulk, scattered, resent, guest, durable, own-disk, isolation or cutover', '')
  .option('--size <MiB>', 'size of the image', count, 4096)
  .option('--dir <path>', 'where images are made; tmpfs', '/dev/shm')
  .action(async (options) => {
    await withCleanup((cleanup) => benchMigrate({ ...options, size: options.size * MIB }, cleanup));
  });

program
  .command('throttle')
  .description('what other images notice of one that is throttled to a crawl, and how smooth a disk limit is')
  .option('--rounds <n>', 'measurements of each figure', count, 5)
  .option('--seconds <n>', 'length of a fio measurement', count, 1)
  .option('--only <section>', 'throttle or smooth', '')
  .option('--size <MiB>', 'size of the throttled image', count, 512)
  .option('--dir <path>', 'where images are made; tmpfs', '/dev/shm')
  .option('--awake', 'keep the CPUs from halting while nothing runs, with loops of the lowest priority')
  .action(async (options) => {
    await withCleanup((cleanup) =>
      benchMigrate({ ...options, size: options.size * MIB }, cleanup, THROTTLE_SECTIONS),
    );
  });

program
  .command('estimates')
  .description('how well the end of a migration is predicted at half of it, by what the guest does meanwhile')
  .option('--rounds <n>', 'migrations of each scenario', count, 3)
  .option('--only <text>', 'only scenarios whose name contains this', '')
  .option('--size <MB>', 'size of the image', count, 150)
  .option('--net <MB/s>', 'network limit', count, 10)
  .option('--dir <path>', 'where images are made; tmpfs', '/dev/shm')
  .action(async (options) => {
    const { size, net } = options;
    await withCleanup((cleanup) => benchEstimates({ ...options, size: size * 1e6, net: net * 1e6 }, cleanup));
  });

program
  .command('vm')
  .description(
    'a real VM moved live: MigrateFS against QEMU blockdev-mirror over NBD, and with shared storage',
  )
  .option('--rounds <n>', 'moves of each', count, 5)
  .option('--seconds <n>', 'how long the guest is watched before the move and in sync', count, 3)
  .option('--size <MiB>', 'size of the disk', count, 1024)
  .option('--rate <MB/s>', 'what the guest wants to write', count, 20)
  .option('--flush <n>', 'records of 4 KiB between two flushes of the guest', count, 64)
  .option('--seed <n>', 'tells the records of this run from others', count, 1)
  .option('--dir <path>', 'where images are made; tmpfs', '/dev/shm')
  .option('--who <names>', 'contenders, separated by commas', namesOf<MoverName>(MOVERS), MOVERS)
  .option('--awake', 'keep the CPUs from halting while nothing runs, with loops of the lowest priority')
  .option('--daemon-args <args>', 'options of our daemons, separated by blanks', '')
  .action(async ({ daemonArgs, ...options }) => {
    await withCleanup((cleanup) =>
      benchVm(
        {
          ...options,
          size: options.size * MIB,
          rate: options.rate * 1e6,
          daemonArgs: daemonArgs.split(' ').filter((each: string) => each !== ''),
        },
        cleanup,
      ),
    );
  });

program
  .command('start')
  .description(
    'how long after its start a daemon serves its mount and its control port, and what CPU time that takes',
  )
  .option('--rounds <n>', 'starts of each build', count, 15)
  .option('--dir <path>', 'where the image is made', '/dev/shm')
  .option('--against <path>', 'build/src/cli/main.js of another checkout, in turn with this one')
  .action(async (options) => {
    await withCleanup((cleanup) => benchStart(options, cleanup));
  });

await program.parseAsync();
