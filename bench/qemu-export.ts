/** QEMU's own FUSE server: `qemu-storage-daemon --export type=fuse` (qemu-storage-daemon(1)). It serves one image. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../test/support/run.js';

export interface QemuExport {
  readonly command: readonly [string, readonly string[]];
  /** Two exports of the same image, which this process opens without and with O_DIRECT. */
  readonly cached: string;
  readonly direct: string;
}

export const qemuExportAvailable = async (): Promise<boolean> => {
  const { code, stdout } = await run('sh', ['-c', 'qemu-storage-daemon --help']);
  return code === 0 && stdout.includes('type=]fuse');
};

/**
 * The settings are the fair ones. Which caching is used below is decided at the start, for the whole export, where a
 * file system follows each open's flags; so there is one export of each kind. `growable=off` spares QEMU a look at the
 * size before each write, and no row grows the image. An I/O thread of its own is QEMU's data plane. Image locks are
 * off because both exports write. Its mount points are files, made here in
 * `folder`.
 */
export const prepareQemuExport = (image: string, folder: string): QemuExport => {
  const cached = join(folder, 'cached.raw');
  const direct = join(folder, 'direct.raw');
  for (const point of [cached, direct]) writeFileSync(point, '');
  const exportOf = (node: string, mountpoint: string, isDirect: boolean): readonly string[] => [
    '--blockdev',
    `driver=file,node-name=${node},filename=${image},aio=threads,cache.direct=${isDirect ? 'on' : 'off'},locking=off,discard=unmap`,
    '--export',
    `type=fuse,id=${node}-export,node-name=${node},mountpoint=${mountpoint},writable=on,growable=off,iothread=io`,
  ];
  const args = [
    '--object',
    'iothread,id=io',
    ...exportOf('cached', cached, false),
    ...exportOf('direct', direct, true),
  ];
  return { command: ['qemu-storage-daemon', args], cached, direct };
};
