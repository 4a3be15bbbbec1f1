/** What a migration that did not complete must not leave behind (G4). */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './run.js';
import type { TestDaemon } from './test-daemon.js';

/** Names of everything below `folder`; what the daemon removes meanwhile is gone, not an error. */
const namesBelow = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (!entry.isDirectory()) return [entry.name];
    try {
      return [entry.name, ...namesBelow(join(folder, entry.name)).map((name) => join(entry.name, name))];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return [];
    }
  });

/** Names of everything in the daemon's image folder. */
export const filesOf = (daemon: TestDaemon): readonly string[] => namesBelow(daemon.imageDir).sort();

/** The ownership record of a backing file, or the empty string. */
export const recordOf = async (path: string): Promise<string> => {
  const { code, stdout } = await run('getfattr', [
    '--only-values',
    '--absolute-names',
    '-n',
    'trusted.migratefs',
    path,
  ]);
  return code === 0 ? stdout : '';
};

/** Removes an image through the mount: refused (EBUSY) while a migration holds it. */
export const unlinkRefusal = (path: string): string => {
  try {
    rmSync(path);
    return '';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
};
