import { isAbsolute, relative, resolve } from 'node:path';
import { MigrateFsError } from '../leaves/errors.js';
import type { DaemonStatus } from '../leaves/migration.js';

/**
 * The daemon's name of an image that was given as such a name, or as a path below its mount point or directory
 * (absolute, or relative and beginning with `./` or `../`). Only the letters are looked at: a stuck mount must not
 * hold up the command. INVALID_ARGUMENT: a path that is elsewhere.
 */
export const imageNameOf = (argument: string, daemon: DaemonStatus, workingDir: string): string => {
  if (!isAbsolute(argument) && !/^\.\.?(\/|$)/.test(argument)) return argument;
  const path = resolve(workingDir, argument);
  for (const root of [daemon.mountpoint, daemon.imageDir]) {
    const name = relative(root, path);
    if (name !== '' && name !== '..' && !name.startsWith('../')) return name;
  }
  throw new MigrateFsError(
    'INVALID_ARGUMENT',
    `${argument} is not below ${daemon.mountpoint}, where this daemon is mounted: give the image's path there, ` +
      'or its name relative to it',
  );
};
