/** Random operations on names, decided by a seed alone: the same below a mount and in a plain folder. */
import { Random } from '../support/random.js';
import { O_CREAT, O_RDWR, type Workbench } from './workbench.js';

const NAMES = ['a', 'b', 'c', 'd'];
const OPEN_MAX = 8;

export interface RandomNamesOptions {
  readonly seed: number;
  readonly operations: number;
  /** Leaves out what libfuse 2 cannot do: rename flags, hard links that agree, folders free of .fuse_hidden*. */
  readonly libfuse2: boolean;
}

const somePath = (random: Random): string => {
  const depth = 1 + random.below(3);
  return Array.from({ length: depth }, () => random.pick(NAMES)).join('/');
};

/** Few names, so that most calls meet something: every answer, also each error, goes to the transcript. */
export const randomNames = (w: Workbench, { seed, operations, libfuse2 }: RandomNamesOptions): void => {
  const random = new Random(seed);
  const open: number[] = [];
  const kinds: readonly (() => void)[] = [
    () => w.mkdir(somePath(random), 0o700 | random.below(0o100)),
    () => w.rmdir(somePath(random)),
    () => {
      const fd = w.open(somePath(random), O_RDWR | O_CREAT, 0o600 | random.below(0o200));
      if (fd < 0) return;
      w.pwrite(fd, `${random.next()}`, random.below(50));
      if (libfuse2) {
        w.close(fd);
        return;
      }
      open.push(fd);
      if (open.length > OPEN_MAX) w.close(open.shift()!);
    },
    () => w.unlink(somePath(random)),
    () => w.rename(somePath(random), somePath(random)),
    () => w.rename(somePath(random), somePath(random)),
    ...(libfuse2
      ? []
      : [
          () => w.rename2(somePath(random), somePath(random), 1 + random.below(2)),
          () => w.link(somePath(random), somePath(random)),
        ]),
    () => w.symlink(somePath(random), somePath(random)),
    () => w.chmod(somePath(random), random.below(0o10000) | 0o700),
    () => w.chown(somePath(random), random.below(3), random.below(3)),
    () => w.stat(somePath(random)),
    () => w.contents(somePath(random)),
    () => w.list(somePath(random)),
    () => w.readlink(somePath(random)),
    () => w.truncate(somePath(random), random.below(100)),
    () => {
      if (open.length > 0) w.pwrite(random.pick(open), `${random.next()}`, random.below(50));
    },
    () => {
      if (open.length > 0) w.pread(random.pick(open), 60, random.below(20));
    },
  ];
  for (let i = 0; i < operations; i++) random.pick(kinds)();
  w.tree();
};
