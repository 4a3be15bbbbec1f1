/** Cases about times: which of them each call moves, of the thing itself and of the folder around it (POSIX.1-2017). */
import { lstatSync } from 'node:fs';
import { libc, SharedMapping } from './libc.js';
import {
  AT_SYMLINK_NOFOLLOW,
  type Case,
  type Cases,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  UTIME_OMIT,
  type Workbench,
} from './workbench.js';

const LONG_AGO = { seconds: 1_000_000_000, nanoseconds: 0 };
const OMITTED = { seconds: 0, nanoseconds: UTIME_OMIT };
const CLOCK_REALTIME = 0;
const CLOCK_REALTIME_COARSE = 5;
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;

const nanosecondsOf = (clock: number): bigint => {
  const time = new BigInt64Array(2);
  libc.clockGettime(clock, time);
  return time[0]! * 1_000_000_000n + time[1]!;
};

/** The portable transport has times in whole milliseconds: in two of them they differ for certain. */
const TICK_NANOSECONDS = 2_000_000n;

/**
 * Waits until the coarse clock, which file systems take their times from, has passed the precise one, which newer
 * kernels take them from where somebody has just looked: a few milliseconds.
 */
const nextTick = (): void => {
  const before = nanosecondsOf(CLOCK_REALTIME);
  while (nanosecondsOf(CLOCK_REALTIME_COARSE) < before + TICK_NANOSECONDS);
};

/** a, m and c for the times of `name` that `body` moves; - when none. Access and modification start long ago. */
const moved = (w: Workbench, names: readonly string[], body: () => void): string => {
  const stats = () => names.map((name) => lstatSync(w.path(name), { bigint: true, throwIfNoEntry: false }));
  const lines = w.transcript.length;
  for (const name of names) w.utimens(name, LONG_AGO, LONG_AGO, AT_SYMLINK_NOFOLLOW);
  w.transcript.splice(lines);
  const before = stats();
  nextTick();
  body();
  const after = stats();
  return names
    .map((name, i) => {
      const [old, now] = [before[i], after[i]];
      if (!old || !now) return `${name} gone`;
      const letters = [
        now.atimeNs !== old.atimeNs ? 'a' : '',
        now.mtimeNs !== old.mtimeNs ? 'm' : '',
        now.ctimeNs !== old.ctimeNs ? 'c' : '',
      ].join('');
      return `${name} ${letters || '-'}`;
    })
    .join(', ');
};

interface TimeRule {
  readonly of: readonly string[];
  /** As `moved` tells it; absent where it depends on how the backing folder is mounted (noatime, relatime). */
  readonly moves?: string;
  readonly by: (w: Workbench) => void;
}

const withFile = (w: Workbench, flags: number, body: (fd: number) => void): void => {
  const fd = w.open('dir/file', flags);
  body(fd);
  w.close(fd);
};

/** Each runs beside `dir/file` (10,000 bytes), `dir/sub`, `dir/link` and `other`. */
const RULES: Readonly<Record<string, TimeRule>> = {
  'creating a file': { of: ['dir'], moves: 'dir mc', by: (w) => w.make('dir/new') },
  'creating a folder': { of: ['dir'], moves: 'dir mc', by: (w) => w.mkdir('dir/new') },
  'creating a symbolic link': { of: ['dir'], moves: 'dir mc', by: (w) => w.symlink('x', 'dir/new') },
  'creating a FIFO': { of: ['dir'], moves: 'dir mc', by: (w) => w.mknod('dir/new', 0o010_600) },
  'creating a hard link': {
    of: ['dir', 'other', 'dir/file'],
    moves: 'dir -, other mc, dir/file c',
    by: (w) => w.link('dir/file', 'other/new'),
  },
  'removing a file': { of: ['dir'], moves: 'dir mc', by: (w) => w.unlink('dir/file') },
  'removing one of two hard links': {
    of: ['dir', 'dir/hard'],
    moves: 'dir mc, dir/hard c',
    by: (w) => w.unlink('dir/file'),
  },
  'removing a folder': { of: ['dir'], moves: 'dir mc', by: (w) => w.rmdir('dir/sub') },
  'renaming in a folder': { of: ['dir'], moves: 'dir mc', by: (w) => w.rename('dir/file', 'dir/new') },
  'renaming to another folder': {
    of: ['dir', 'other'],
    moves: 'dir mc, other mc',
    by: (w) => w.rename('dir/file', 'other/new'),
  },
  'renaming a folder to another': {
    of: ['dir', 'other'],
    moves: 'dir mc, other mc',
    by: (w) => w.rename('dir/sub', 'other/new'),
  },
  'renaming over one of two hard links': {
    of: ['dir', 'dir/hard'],
    moves: 'dir mc, dir/hard c',
    by: (w) => w.rename('dir/link', 'dir/file'),
  },
  exchanging: {
    of: ['dir', 'other'],
    moves: 'dir mc, other mc',
    by: (w) => w.rename2('dir/file', 'other/sibling', 2),
  },
  writing: {
    of: ['dir/file', 'dir'],
    moves: 'dir/file mc, dir -',
    by: (w) => withFile(w, O_WRONLY, (fd) => w.pwrite(fd, 'x', 5)),
  },
  'writing at the end': {
    of: ['dir/file', 'dir'],
    moves: 'dir/file mc, dir -',
    by: (w) => withFile(w, O_WRONLY, (fd) => w.pwrite(fd, 'x', 20_000)),
  },
  'writing nothing': {
    of: ['dir/file'],
    moves: 'dir/file -',
    by: (w) => withFile(w, O_WRONLY, (fd) => w.pwrite(fd, '', 5)),
  },
  'writing through a mapping': {
    of: ['dir/file'],
    by: (w) =>
      withFile(w, O_RDWR, (fd) => {
        const mapping = new SharedMapping(fd, 8192);
        mapping.write(100, Buffer.from('x'));
        mapping.sync();
        mapping.unmap();
      }),
  },
  shrinking: { of: ['dir/file', 'dir'], moves: 'dir/file mc, dir -', by: (w) => w.truncate('dir/file', 5) },
  growing: { of: ['dir/file'], moves: 'dir/file mc', by: (w) => w.truncate('dir/file', 50_000) },
  'growing an open file': {
    of: ['dir/file'],
    moves: 'dir/file mc',
    by: (w) => withFile(w, O_WRONLY, (fd) => w.ftruncate(fd, 50_000)),
  },
  'opening to truncate': {
    of: ['dir/file'],
    moves: 'dir/file mc',
    by: (w) => withFile(w, O_WRONLY | O_TRUNC, () => undefined),
  },
  'opening an existing file with O_CREAT': {
    of: ['dir/file', 'dir'],
    moves: 'dir/file -, dir -',
    by: (w) => withFile(w, O_RDWR | O_CREAT, () => undefined),
  },
  reading: {
    of: ['dir/file'],
    by: (w) => withFile(w, O_RDONLY, (fd) => w.pread(fd, 100, 0)),
  },
  'reading a folder': { of: ['dir'], by: (w) => w.list('dir') },
  'reading a symbolic link': { of: ['dir/link'], by: (w) => w.readlink('dir/link') },
  'looking at attributes': {
    of: ['dir/file', 'dir'],
    moves: 'dir/file -, dir -',
    by: (w) => {
      w.stat('dir/file');
      w.access('dir/file', 4);
      w.listxattr('dir/file');
    },
  },
  chmod: { of: ['dir/file', 'dir'], moves: 'dir/file c, dir -', by: (w) => w.chmod('dir/file', 0o600) },
  'chmod of a folder': { of: ['dir'], moves: 'dir c', by: (w) => w.chmod('dir', 0o700) },
  'chmod to the same mode': { of: ['dir/file'], moves: 'dir/file c', by: (w) => w.chmod('dir/file', 0o644) },
  chown: { of: ['dir/file', 'dir'], moves: 'dir/file c, dir -', by: (w) => w.chown('dir/file', 5, 6) },
  'chown of a symbolic link': {
    of: ['dir/link', 'dir/file'],
    moves: 'dir/link c, dir/file -',
    by: (w) => w.lchown('dir/link', 5, 6),
  },
  'setting an attribute': {
    of: ['dir/file'],
    moves: 'dir/file c',
    by: (w) => w.setxattr('dir/file', 'trusted.x', 'x'),
  },
  'setting the access time': {
    of: ['dir/file'],
    moves: 'dir/file ac',
    by: (w) => w.utimens('dir/file', { seconds: 5, nanoseconds: 0 }, OMITTED),
  },
  'setting the modification time': {
    of: ['dir/file'],
    moves: 'dir/file mc',
    by: (w) => w.utimens('dir/file', OMITTED, { seconds: 5, nanoseconds: 0 }),
  },
  'setting neither time': {
    of: ['dir/file'],
    moves: 'dir/file -',
    by: (w) => w.utimens('dir/file', OMITTED, OMITTED),
  },
  'syncing and locking': {
    of: ['dir/file'],
    moves: 'dir/file -',
    by: (w) =>
      withFile(w, O_RDWR, (fd) => {
        w.fsync(fd);
        w.flock(fd, 2);
      }),
  },
};

/** Only where the transport has fallocate(2). */
const SPACE_RULES: Readonly<Record<string, TimeRule>> = {
  preallocating: {
    of: ['dir/file'],
    moves: 'dir/file mc',
    by: (w) => withFile(w, O_WRONLY, (fd) => w.fallocate(fd, 0, 0, 100_000)),
  },
  'punching a hole': {
    of: ['dir/file'],
    moves: 'dir/file mc',
    by: (w) => withFile(w, O_WRONLY, (fd) => w.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 0, 5000)),
  },
  zeroing: {
    of: ['dir/file'],
    moves: 'dir/file mc',
    by: (w) => withFile(w, O_WRONLY, (fd) => w.fallocate(fd, ZERO_RANGE, 0, 5000)),
  },
};

/** Calls that fail change nothing. */
const FAILURES: Readonly<Record<string, (w: Workbench) => void>> = {
  'creating what is there': (w) => void w.open('dir/file', O_RDWR | O_CREAT | O_EXCL),
  'making a folder that is there': (w) => w.mkdir('dir/sub'),
  'making a link that is there': (w) => w.symlink('x', 'dir/file'),
  'making a FIFO that is there': (w) => w.mknod('dir/file', 0o010_600),
  'linking to what is there': (w) => w.link('other/sibling', 'dir/file'),
  'removing a folder as a file': (w) => w.unlink('dir/sub'),
  'removing a file as a folder': (w) => w.rmdir('dir/file'),
  'removing nothing': (w) => w.unlink('dir/none'),
  'renaming nothing': (w) => w.rename('dir/none', 'dir/file'),
  'renaming a file onto a folder': (w) => w.rename('dir/file', 'dir/sub'),
  'truncating to a negative size': (w) => w.truncate('dir/file', -1),
  'changes by a stranger': (w) =>
    w.as(1003, () => {
      w.chmod('dir/file', 0o777);
      w.chown('dir/file', 1003, 1003);
      w.truncate('dir/file', 0);
      w.unlink('dir/file');
      w.make('dir/new');
      w.setxattr('dir/file', 'user.x', 'x');
    }),
};

const prepare = (w: Workbench): void => {
  w.mkdir('dir');
  w.mkdir('dir/sub');
  w.mkdir('other');
  w.make('dir/file', 'x'.repeat(10_000));
  w.make('other/sibling', 'sibling');
  w.symlink('file', 'dir/link');
};

const ruleCase =
  ({ of, moves, by }: TimeRule): Case =>
  (w) => {
    prepare(w);
    if (of.includes('dir/hard')) w.link('dir/file', 'dir/hard');
    const found = moved(w, of, () => by(w));
    if (moves === undefined) w.note('moved', found);
    else w.expect(moves, () => w.note('moved', found));
  };

const casesOf = (rules: Readonly<Record<string, TimeRule>>): Cases =>
  Object.fromEntries(Object.entries(rules).map(([name, rule]) => [`times: ${name}`, ruleCase(rule)]));

export const timeCases: Cases = {
  ...casesOf(RULES),
  ...casesOf(SPACE_RULES),
  'times: calls that fail': (w) => {
    prepare(w);
    for (const [name, call] of Object.entries(FAILURES)) {
      const found = moved(w, ['dir', 'dir/file', 'dir/sub'], () => call(w));
      w.expect('dir -, dir/file -, dir/sub -', () => w.note(name, found));
    }
  },
  'times: all three of a new thing are now': (w) => {
    const made: Readonly<Record<string, (name: string) => void>> = {
      file: (name) => w.make(name),
      folder: (name) => w.mkdir(name),
      link: (name) => w.symlink('x', name),
      fifo: (name) => w.mknod(name, 0o010_600),
    };
    for (const [kind, make] of Object.entries(made)) {
      nextTick();
      const before = nanosecondsOf(CLOCK_REALTIME_COARSE);
      make(kind);
      const { atimeNs, mtimeNs, ctimeNs } = lstatSync(w.path(kind), { bigint: true });
      nextTick();
      const after = nanosecondsOf(CLOCK_REALTIME_COARSE);
      w.expect('true', () => {
        for (const time of [atimeNs, mtimeNs, ctimeNs]) w.note(kind, time >= before && time <= after);
        w.note(`${kind}, equal`, atimeNs === mtimeNs && mtimeNs === ctimeNs);
      });
    }
  },
  'times: seen through a descriptor and a name alike': (w) => {
    prepare(w);
    const reader = w.open('dir/file', O_RDONLY);
    const writer = w.open('dir/file', O_RDWR);
    for (let round = 0; round < 5; round++) {
      nextTick();
      w.pwrite(writer, `${round}`, round * 1000);
      const named = lstatSync(w.path('dir/file'), { bigint: true });
      w.ftruncate(writer, 20_000 + round);
      const after = lstatSync(w.path('dir/file'), { bigint: true });
      w.note('later or the same', after.mtimeNs >= named.mtimeNs && after.ctimeNs >= named.ctimeNs);
      w.note('size', after.size);
    }
    w.close(reader);
    w.open('dir', O_RDONLY | O_DIRECTORY);
  },
};
