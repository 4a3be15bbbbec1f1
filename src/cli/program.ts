import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { doctorCommand } from './commands/doctor.js';
import { imagesCommand } from './commands/images.js';
import { migrateCommand } from './commands/migrate.js';
import { mountCommand } from './commands/mount.js';
import { schedulerCommand } from './commands/scheduler.js';
import { statusCommand } from './commands/status.js';
import {
  cancelCommand,
  cutoverCommand,
  limitCommand,
  pauseCommand,
  resumeCommand,
} from './commands/steer.js';
import { submitCommand } from './commands/submit.js';
import { taskCancelCommand } from './commands/task-cancel.js';
import { tasksCommand } from './commands/tasks.js';
import { unmountCommand } from './commands/unmount.js';
import { verifyCommand } from './commands/verify.js';

const EXAMPLES = `
Examples:
  migratefs mount /var/lib/images                       serve a directory of images in place
  migratefs migrate vm1/root.qcow2 --to host-b:7071     move a disk, with a progress bar
  migratefs status --watch                              see every migration of the daemon
  migratefs doctor /var/lib/images                      check this host before the first mount

Exit codes: 0 done, 1 failed (one line on stderr says why and what to do), 2 usage.`;

const packageVersion = (): string => {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
};

/** Errors are thrown, never exited with; what concerns usage is a `CommanderError`. */
export const buildProgram = (): Command => {
  const program = new Command('migratefs')
    .description('A file system for VM disk images that moves them to another host while the VM runs.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .addHelpText('after', EXAMPLES);
  const commands = [
    mountCommand(),
    migrateCommand(),
    statusCommand(),
    limitCommand(),
    pauseCommand(),
    resumeCommand(),
    cancelCommand(),
    cutoverCommand(),
    verifyCommand(),
    imagesCommand(),
    schedulerCommand(),
    submitCommand(),
    tasksCommand(),
    taskCancelCommand(),
    unmountCommand(),
    doctorCommand(),
  ];
  for (const command of commands) program.addCommand(command);
  for (const command of [program, ...commands])
    command
      .exitOverride()
      .showHelpAfterError(
        `(see \`${command === program ? 'migratefs' : `migratefs ${command.name()}`} --help\`)`,
      )
      .configureOutput({
        outputError: (text, write) => write(text.replace(/^error: /, 'migratefs: ')),
      });
  return program;
};
