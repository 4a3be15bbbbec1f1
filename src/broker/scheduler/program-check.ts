import { accessSync, constants, statSync } from 'node:fs';
import { MigrateFsError } from '../../leaves/errors.js';
import type { DriverConfig } from './driver-config.js';

/** Each program that a driver runs on this host, with its place in the driver's configuration. */
const programsOf = (driver: DriverConfig): readonly (readonly [place: string, program: string])[] => {
  if (driver.type === 'libvirt') return [['virsh', driver.virsh]];
  const commands =
    driver.type === 'exec' ? { command: driver.command, rollback: driver.rollback } : { start: driver.start };
  return Object.entries(commands).flatMap(([place, command]) =>
    command === undefined ? [] : [[place, command[0]!] as const],
  );
};

const faultOf = (program: string): string | undefined => {
  try {
    if (!statSync(program).isFile()) return 'is not a file: give the path of a program';
  } catch (error) {
    return `cannot be found (${(error as NodeJS.ErrnoException).code}): install it, or give its path`;
  }
  try {
    accessSync(program, constants.X_OK);
  } catch {
    return `cannot be run: chmod +x ${program}`;
  }
  return undefined;
};

/** Found out now, not when the disks have been copied. INVALID_ARGUMENT names a program that cannot be run. */
export const checkPrograms = (drivers: readonly DriverConfig[]): void => {
  for (const driver of drivers)
    for (const [place, program] of programsOf(driver)) {
      const fault = faultOf(program);
      if (fault !== undefined)
        throw new MigrateFsError(
          'INVALID_ARGUMENT',
          `scheduler.drivers.${driver.name}.${place}: ${program} ${fault}`,
        );
    }
};
