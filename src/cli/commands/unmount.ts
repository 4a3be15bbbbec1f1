import { resolve } from 'node:path';
import { Command } from 'commander';
import type { ClientOptions } from '../option-parsers.js';
import { addClientOptions, withClient } from '../option-parsers.js';
import { toJson } from '../render.js';

const HELP = `
Asks the daemon at --server to give its mount point up and end. It refuses while files are open, because that would take
the disks of running VMs away, and while images migrate; the message says whose. With --lazy the mount point is
detached at once: nothing new can be opened, open files can be used until they are closed, then the daemon ends.

Examples:
  migratefs unmount /var/lib/images
  migratefs unmount /var/lib/images --lazy
  migratefs unmount /var/lib/images --lazy --json | jq -r '.holders[].pid'`;

interface UnmountFlags extends ClientOptions {
  readonly lazy: boolean;
  readonly json: boolean;
}

const unmount = async (given: string, flags: UnmountFlags): Promise<void> => {
  const mountpoint = resolve(given);
  const holders = await withClient(flags, (client) => client.unmount({ mountpoint, lazy: flags.lazy }));
  if (flags.json) {
    console.log(toJson({ mountpoint, lazy: flags.lazy, holders }));
    return;
  }
  console.log(
    `${mountpoint}: unmounted${holders.length > 0 ? '; the daemon ends when these are closed:' : ''}`,
  );
  for (const { pid, command, path } of holders) console.log(`  ${command} (pid ${pid}) ${path}`);
};

export const unmountCommand = (): Command =>
  addClientOptions(
    new Command('unmount')
      .description('give a mount point up; refused while files on it are open')
      .argument('<mountpoint>', 'where the daemon serves')
      .option('--lazy', 'detach at once, and end when the last open file is closed', false)
      .option('--json', 'one object: mountpoint, lazy, holders', false),
  )
    .addHelpText('after', HELP)
    .action(unmount);
