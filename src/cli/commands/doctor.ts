import { Command, Option } from 'commander';
import { MigrateFsError } from '../../leaves/errors.js';
import type { HostPort } from '../../leaves/host-port.js';
import { parseHostPort } from '../../leaves/host-port.js';
import { CONTROL_DEFAULT, checkedBy, DATA_DEFAULT } from '../option-parsers.js';
import { toJson } from '../render.js';

const HELP = `
Checks what \`migratefs mount\` needs: Node.js, /dev/fuse, rights, kernel, libraries, limits, free ports, and, when a
directory is given, whether images there can be served (trusted extended attributes, holes, free space). Changes
nothing but a small file in that directory, which it removes again.

Each line is ok, warn (it works, with a drawback) or fail (it will not work) with the remedy. Exit code 1 on any fail.

Examples:
  migratefs doctor
  migratefs doctor /var/lib/images --json`;

interface DoctorFlags {
  readonly listen: HostPort;
  readonly data: HostPort;
  readonly json: boolean;
}

const doctor = async (imageDir: string | undefined, flags: DoctorFlags): Promise<void> => {
  const { checkHost } = await import('../../doctor.js');
  const findings = await checkHost({ imageDir, listen: flags.listen, data: flags.data });
  for (const finding of findings) {
    const { level, what, found, remedy } = finding;
    if (flags.json) console.log(toJson(finding));
    else console.log(`${level.padEnd(4)}  ${what}: ${found}${remedy === undefined ? '' : `; ${remedy}`}`);
  }
  const failed = findings.filter(({ level }) => level === 'fail');
  if (failed.length > 0)
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `this host is not ready: ${failed.map(({ what }) => what).join(', ')} (see above)`,
    );
};

export const doctorCommand = (): Command =>
  new Command('doctor')
    .description('check whether this host can run MigrateFS')
    .argument('[image-dir]', 'directory that is to be served')
    .addOption(
      new Option('--listen <host:port>', 'control address to check')
        .argParser(checkedBy(parseHostPort))
        .default(parseHostPort(CONTROL_DEFAULT), CONTROL_DEFAULT),
    )
    .addOption(
      new Option('--data <host:port>', 'data address to check')
        .argParser(checkedBy(parseHostPort))
        .default(parseHostPort(DATA_DEFAULT), DATA_DEFAULT),
    )
    .option('--json', 'a line of JSON for each check', false)
    .addHelpText('after', HELP)
    .action(doctor);
