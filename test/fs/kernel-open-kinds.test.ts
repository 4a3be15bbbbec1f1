import { spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  constants,
  type Dir,
  ftruncateSync,
  mkdirSync,
  opendirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { DirectoryHandles } from '../../src/fs/kernel/directory-reader.js';
import { MiB } from '../../src/leaves/units.js';
import { SharedMapping } from '../posix/libc.js';
import { KernelMount } from '../support/kernel-mount.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait-for.js';

const PAGE = 4096;
const page = (byte: string): Buffer => Buffer.alloc(PAGE, byte);

const firstByte = (fd: number): string => {
  const got = Buffer.alloc(1);
  readSync(fd, got, 0, 1, 0);
  return got.toString();
};

const STOPPED_MS = 3000;

/** The first byte, read while the process that serves `mount` is stopped; `late` when that needed the process. */
const firstByteWhileStopped = (mount: KernelMount, fd: number): string => {
  // Before the stop: a process that begins closes what it inherits, and the mount hears of that.
  const wakeUp = spawn('sh', ['-c', `sleep ${STOPPED_MS / 1000}; kill -CONT ${mount.pid}`]);
  const began = performance.now();
  process.kill(mount.pid, 'SIGSTOP');
  try {
    const byte = firstByte(fd);
    return performance.now() - began < STOPPED_MS ? byte : 'late';
  } finally {
    process.kill(mount.pid, 'SIGCONT');
    wakeUp.kill();
  }
};

const openedUnlessBusy = (path: string): number | undefined => {
  try {
    return openSync(path, 'r+');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ETXTBSY') return undefined;
    throw error;
  }
};

t.test('a base image that was closed just now can be opened for writing', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(mount.path('base'), page('b'));
  chmodSync(mount.path('base'), 0o444);
  let busy = 0;
  for (let i = 0; i < 1000; i++) {
    const reading = openSync(mount.path('base'), 'r');
    firstByte(reading);
    closeSync(reading);
    const writing = openedUnlessBusy(mount.path('base'));
    if (writing === undefined) busy++;
    else closeSync(writing);
  }
  t.equal(busy, 0);
});

t.test('a file that nobody may write is read past the daemon', async (t) => {
  const mount = await KernelMount.start(t);
  writeFileSync(join(mount.dir, 'base'), page('a'), { mode: 0o444 });
  const fd = openSync(mount.path('base'), 'r');
  t.equal(firstByteWhileStopped(mount, fd), 'a', 'read without an answer of the daemon');
  chmodSync(join(mount.dir, 'base'), 0o644);
  writeFileSync(join(mount.dir, 'base'), page('b'));
  t.equal(firstByteWhileStopped(mount, fd), 'b', 'what the backing file holds now');
  t.throws(() => openSync(mount.path('base'), 'r+'), { code: 'ETXTBSY' }, 'not written past dirty tracking');
  const second = openSync(mount.path('base'), 'r');
  t.equal(firstByteWhileStopped(mount, second), 'b', 'a second reader beside it');
  closeSync(second);
  closeSync(fd);
  // The kernel tells the daemon of a close later; close(2) does not wait for that.
  let writer = -1;
  await waitFor(() => {
    writer = openedUnlessBusy(mount.path('base')) ?? -1;
    return writer >= 0;
  }, 'the daemon knows of the closes');
  writeSync(writer, page('c'), 0, PAGE, 0);
  const reader = openSync(mount.path('base'), 'r');
  t.equal(firstByte(reader), 'c', 'writable again once no reader is left');
  closeSync(reader);
  closeSync(writer);
});

t.test('a writer is never without the daemon, whatever the permissions say', async (t) => {
  const mount = await KernelMount.start(t);
  const writer = openSync(mount.path('new'), 'wx+', 0o444);
  writeSync(writer, page('v'), 0, PAGE, 0);
  const mapping = new SharedMapping(writer, PAGE);
  t.equal(mapping.read(0, 1).toString(), 'v');
  const reader = openSync(mount.path('new'), 'r');
  mapping.unmap();
  await mount.tell('route new');
  writeSync(writer, page('w'), 0, PAGE, 0);
  t.match(JSON.parse(await mount.tell('counts')), { write: 1 }, 'the write was routed');
  t.equal(firstByte(reader), 'w', 'and the reader beside it sees it');
  closeSync(reader);
  closeSync(writer);
  await mount.tell('idle new');
});

t.test('with passthrough off such a file is served like any other', async (t) => {
  const mount = await KernelMount.start(t, { passthrough: false });
  writeFileSync(join(mount.dir, 'base'), page('a'), { mode: 0o444 });
  const reader = openSync(mount.path('base'), 'r');
  const writer = openSync(mount.path('base'), 'r+');
  writeSync(writer, page('b'), 0, PAGE, 0);
  t.equal(firstByte(reader), 'b');
  closeSync(reader);
  closeSync(writer);
});

t.test('what is open for writing has no second page cache, and can be mapped', async (t) => {
  const mount = await KernelMount.start(t);
  const fd = openSync(mount.path('image'), constants.O_RDWR | constants.O_CREAT);
  writeSync(fd, page('a'), 0, PAGE, 0);
  t.equal(firstByte(fd), 'a');
  const backing = openSync(join(mount.dir, 'image'), 'r+');
  writeSync(backing, page('b'), 0, PAGE, 0);
  t.equal(firstByte(fd), 'b', 'a change behind the mount is seen by the next read');
  const mapping = new SharedMapping(fd, PAGE);
  t.equal(mapping.read(0, 1).toString(), 'b', 'mapped');
  writeSync(fd, page('c'), 0, PAGE, 0);
  t.equal(mapping.read(0, 1).toString(), 'c', 'the mapping sees the write');
  mapping.write(0, Buffer.from('d'));
  t.equal(firstByte(fd), 'd', 'a read sees what was mapped');
  mapping.unmap();
  ftruncateSync(fd, 0);
  t.equal(statSync(mount.path('image')).size, 0);
  closeSync(backing);
  closeSync(fd);
});

const openDescriptors = ({ pid }: KernelMount): number => readdirSync(`/proc/${pid}/fd`).length;

t.test('inodes that nobody uses give their descriptors back', async (t) => {
  const FILES = 1500;
  const mount = await KernelMount.start(t, { openFilesMax: 1000 });
  mkdirSync(join(mount.dir, 'folder'));
  for (let i = 0; i < FILES; i++) writeFileSync(join(mount.dir, `folder/${i}`), String(i));
  const kept = openSync(mount.path('folder/0'), 'r');
  const before = openDescriptors(mount);
  const wrong: number[] = [];
  for (let i = 1; i < FILES; i++) {
    // The daemon asks the kernel to forget at 450 of them; a hundred at a time leave it time to.
    if (i % 100 === 0)
      await waitFor(() => openDescriptors(mount) - before < 600, 'the oldest inodes are forgotten');
    if (statSync(mount.path(`folder/${i}`)).size !== String(i).length) wrong.push(i);
  }
  t.same(wrong, []);
  t.equal(firstByte(kept), '0', 'what is open stays');
  t.equal(readFileSync(mount.path('folder/1'), 'utf8'), '1', 'what was forgotten is found again');
  closeSync(kept);
});

t.test('folders that are open take a part of the descriptors only', async (t) => {
  const mount = await KernelMount.start(t, { openFilesMax: 400 });
  writeFileSync(join(mount.dir, 'image'), 'i');
  const folders: Dir[] = [];
  t.throws(
    () => {
      for (let i = 0; i < 400; i++) folders.push(opendirSync(mount.mountpoint));
    },
    { code: 'ENFILE' },
  );
  t.ok(folders.length > 50, `${folders.length} open`);
  const fd = openSync(mount.path('image'), 'r+');
  t.equal(firstByte(fd), 'i', 'files can be opened');
  closeSync(fd);
  t.equal(folders[0]!.readSync()!.name, 'image');
  folders[0]!.closeSync();
  // RELEASEDIR comes when it likes.
  await waitFor(() => {
    try {
      folders[0] = opendirSync(mount.mountpoint);
      return true;
    } catch {
      return false;
    }
  }, 'and a folder, when another one is closed');
  for (const folder of folders) folder.closeSync();
});

t.test('an open folder takes memory only while it is read', async (t) => {
  const FOLDERS = 500;
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const dir = scratchDir(t, 'folder');
  for (let i = 0; i < 10; i++) writeFileSync(join(dir, String(i)), '');
  const directories = new DirectoryHandles();
  t.teardown(() => directories.close());
  const before = process.memoryUsage().arrayBuffers;
  const little = (): boolean => {
    collect();
    return process.memoryUsage().arrayBuffers - before < MiB;
  };
  const handles = Array.from({ length: FOLDERS }, () => directories.open(openSync(dir, 'r')));
  t.ok(little(), 'when it is opened');
  for (const handle of handles) {
    const reader = directories.get(handle);
    let entries = 0;
    for (; reader.next() > 0; entries++) reader.shift();
    if (entries !== 12) t.fail(`${entries} entries`);
    reader.seek(0, 0);
    if (reader.next() !== 1) t.fail('it cannot be read again');
    while (reader.next() > 0) reader.shift();
  }
  await waitFor(little, 'and when it has been read');
});

t.test('descriptors used up: a clear error, and all is well when they are free again', async (t) => {
  const mount = await KernelMount.start(t, { openFilesMax: 200 });
  for (let i = 0; i < 200; i++) writeFileSync(join(mount.dir, String(i)), '');
  const open: number[] = [];
  t.throws(
    () => {
      for (let i = 0; i < 200; i++) open.push(openSync(mount.path(String(i)), 'r'));
    },
    { code: 'ENFILE' },
  );
  t.ok(open.length > 50, `${open.length} open`);
  t.match(await mount.tell('counts'), /\{/, 'the daemon still answers');
  for (const fd of open) closeSync(fd);
  await waitFor(() => {
    try {
      closeSync(openSync(mount.path('199'), 'r'));
      return true;
    } catch {
      return false;
    }
  }, 'opening works again');
});
