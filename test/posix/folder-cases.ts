/** Cases about reading folders with getdents64(2): what is listed, where a reader stands, what changes meanwhile. */
import { lstatSync } from 'node:fs';
import { errnoName, libc } from './libc.js';
import { type Cases, O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR, type Workbench } from './workbench.js';

const SEEK_SET = 0;

interface Entry {
  readonly name: string;
  readonly inode: bigint;
  readonly kind: number;
  /** Where lseek(2) has to go for what follows. */
  readonly next: bigint;
}

/** struct linux_dirent64: inode (8), next (8), length (2), kind (1), name to NUL. */
const readEntries = (fd: number, room = 4096): Entry[] | number => {
  const buffer = Buffer.alloc(room);
  const length = libc.getdents64(fd, buffer, room);
  if (length < 0) return length;
  const entries: Entry[] = [];
  for (let at = 0; at < length; at += buffer.readUInt16LE(at + 16))
    entries.push({
      inode: buffer.readBigUInt64LE(at),
      next: buffer.readBigInt64LE(at + 8),
      kind: buffer[at + 18]!,
      name: buffer.toString('latin1', at + 19, buffer.indexOf(0, at + 19)),
    });
  return entries;
};

/** All that follows, `room` bytes at a time. */
const readRest = (fd: number, room = 4096): Entry[] => {
  const all: Entry[] = [];
  for (;;) {
    const some = readEntries(fd, room);
    if (typeof some === 'number') throw new Error(`getdents64: ${errnoName(-some)}`);
    if (some.length === 0) return all;
    all.push(...some);
  }
};

const sorted = (entries: readonly Entry[]): string =>
  entries
    .map(({ name }) => name)
    .sort()
    .join(' ');

const openFolder = (w: Workbench, name: string): number => w.open(name, O_RDONLY | O_DIRECTORY);

const fill = (w: Workbench, folder: string, count: number): void => {
  const lines = w.transcript.length;
  w.mkdir(folder);
  for (let i = 0; i < count; i++) w.make(`${folder}/entry-${i}-${'x'.repeat(i % 40)}`);
  w.transcript.splice(lines);
};

export const folderCases: Cases = {
  'entries name kind and inode': (w) => {
    w.mkdir('dir');
    w.make('dir/file');
    w.mkdir('dir/sub');
    w.symlink('x', 'dir/link');
    w.mknod('dir/fifo', 0o010_600);
    w.mknod('dir/socket', 0o140_600);
    w.mknod('dir/device', 0o020_600, 0x0103);
    const entries = readRest(openFolder(w, 'dir'));
    for (const { name, kind, inode } of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const wanted = lstatSync(w.path(`dir/${name}`), { bigint: true }).ino;
      // What lies above the mount's root has another inode on either side.
      w.note(`${name} ${kind}`, inode === wanted);
    }
    w.expect('. .. device fifo file link socket sub', () => w.note('entries', sorted(entries)));
  },
  'an empty folder lists itself and its parent': (w) => {
    w.mkdir('dir');
    w.mkdir('dir/sub');
    const entries = readRest(openFolder(w, 'dir/sub'));
    w.expect('. ..', () => w.note('entries', sorted(entries)));
    const inode = (name: string) => entries.find((entry) => entry.name === name)?.inode;
    w.note('itself', inode('.') === lstatSync(w.path('dir/sub'), { bigint: true }).ino);
    w.note('parent', inode('..') === lstatSync(w.path('dir'), { bigint: true }).ino);
  },
  'a small buffer': (w) => {
    fill(w, 'dir', 200);
    const small = readRest(openFolder(w, 'dir'), 300);
    const large = readRest(openFolder(w, 'dir'), 65_536);
    w.expect(202, () => w.note('entries', small.length));
    w.note('names', sorted(small));
    w.note('the same', sorted(small) === sorted(large));
    const tooSmall = readEntries(openFolder(w, 'dir'), 20);
    w.expect('EINVAL', () =>
      w.note('20 bytes', typeof tooSmall === 'number' ? errnoName(-tooSmall) : 'read'),
    );
  },
  'a reader goes back to where it was': (w) => {
    fill(w, 'dir', 500);
    const fd = openFolder(w, 'dir');
    const all = readRest(fd);
    for (const stop of [0, 1, 100, 499, 501]) {
      const { next } = all[stop]!;
      libc.lseek(fd, next, SEEK_SET);
      const rest = readRest(fd);
      w.note(`after ${stop}`, rest.length);
      w.note('the rest', sorted(rest) === sorted(all.slice(stop + 1)));
    }
    w.lseek(fd, 0, SEEK_SET);
    w.note('again', sorted(readRest(fd)) === sorted(all));
  },
  'two readers of one folder': (w) => {
    fill(w, 'dir', 100);
    const a = openFolder(w, 'dir');
    const b = openFolder(w, 'dir');
    const first = readEntries(a, 500) as Entry[];
    const others = readRest(b);
    w.note('a', first.length + readRest(a).length);
    w.note('b', others.length);
  },
  'removing everything while reading': (w) => {
    fill(w, 'dir', 1000);
    const fd = openFolder(w, 'dir');
    const seen = new Map<string, number>();
    const lines = w.transcript.length;
    for (;;) {
      const entries = readEntries(fd, 1000) as Entry[];
      if (entries.length === 0) break;
      for (const { name } of entries) {
        seen.set(name, (seen.get(name) ?? 0) + 1);
        if (!name.startsWith('.')) w.unlink(`dir/${name}`);
      }
    }
    w.transcript.splice(lines);
    // POSIX readdir: what is there all along comes exactly once; nothing here was taken away before it was seen.
    w.expect(1002, () => w.note('seen', seen.size));
    w.expect(1, () => w.note('most often', Math.max(...seen.values())));
    w.expect(0, () => w.rmdir('dir'));
  },
  'adding and removing while reading': (w) => {
    fill(w, 'dir', 300);
    const fd = openFolder(w, 'dir');
    const seen: string[] = [];
    const lines = w.transcript.length;
    for (let round = 0; ; round++) {
      const entries = readEntries(fd, 800) as Entry[];
      if (entries.length === 0) break;
      seen.push(...entries.map(({ name }) => name));
      w.make(`dir/late-${round}`);
      w.rename(`dir/late-${round}`, `dir/later-${round}`);
    }
    w.transcript.splice(lines);
    const kept = seen.filter((name) => name.startsWith('entry-'));
    w.expect(300, () => w.note('kept', kept.length));
    w.note('once', new Set(kept).size);
  },
  'a rewound reader sees what is new': (w) => {
    w.mkdir('dir');
    const fd = openFolder(w, 'dir');
    for (let i = 0; i < 5; i++) {
      const lines = w.transcript.length;
      w.make(`dir/new-${i}`);
      w.transcript.splice(lines);
      libc.lseek(fd, 0, SEEK_SET);
      w.expect(3 + i, () => w.note('entries', readRest(fd).length));
    }
    w.unlink('dir/new-2');
    libc.lseek(fd, 0, SEEK_SET);
    w.note('entries', sorted(readRest(fd)));
  },
  'a folder that was removed lists nothing': (w) => {
    w.mkdir('gone');
    const fd = openFolder(w, 'gone');
    w.rmdir('gone');
    const entries = readEntries(fd);
    w.note('entries', typeof entries === 'number' ? errnoName(-entries) : entries.length);
  },
  'what is not a folder lists nothing': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT);
    w.expect('ENOTDIR', () => w.note('entries', errnoName(-(readEntries(fd) as number))));
  },
};
