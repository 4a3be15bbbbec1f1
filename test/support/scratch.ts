/** Scratch folders and what must be undone even when a test dies. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What tap's `t` offers, and a benchmark can imitate. */
export interface Teardown {
  teardown(undo: () => unknown): void;
}

const scratches = new Set<string>();
const children = new Set<number>();

const octalDecoded = (field: string): string =>
  field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

const mounts = (): { point: string; type: string }[] =>
  readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .map(([, point = '', type = '']) => ({ point: octalDecoded(point), type }));

/** Mount points at or below `folder`, deepest first. Never touches the mounts themselves. */
export const mountsBelow = (folder: string): string[] =>
  mounts()
    .map(({ point }) => point)
    .filter((point) => point === folder || point.startsWith(`${folder}/`))
    .reverse();

/** Mount points of FUSE file systems, living or dead. */
export const fuseMounts = (): string[] =>
  mounts()
    .filter(({ type }) => type.startsWith('fuse'))
    .map(({ point }) => point);

/** Detaches whatever is mounted at or below `folder`, then deletes it. */
export const removeTree = (folder: string): void => {
  for (const point of mountsBelow(folder)) spawnSync('umount', ['-l', point]);
  rmSync(folder, { recursive: true, force: true });
  scratches.delete(folder);
};

/** A new empty folder, `mfs-*` in the system's folder for temporary files, removed at the end of the test. */
export const scratchDir = (t: Teardown, name = 'test'): string => {
  const folder = mkdtempSync(join(tmpdir(), `mfs-${name}-`));
  // Tests act as other users too.
  chmodSync(folder, 0o755);
  scratches.add(folder);
  t.teardown(() => removeTree(folder));
  return folder;
};

/** A process that must not outlive this one. */
export const guardProcess = (pid: number): void => void children.add(pid);
export const releaseProcess = (pid: number): void => void children.delete(pid);

process.on('exit', () => {
  for (const pid of children) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended already.
    }
  }
  for (const folder of [...scratches]) removeTree(folder);
});
