import { Command, Option } from 'commander';
import type { LogLevel } from '../../leaves/daemon-options.js';
import { LOG_LEVELS } from '../../leaves/daemon-options.js';

const HELP = `
Takes migration tasks (\`migratefs submit\`), decides when each starts, has the source daemon copy the disks, calls a driver
that moves the VM once they are in sync, and closes the task. Runs in the foreground until SIGTERM or SIGINT; migrations
and drivers that are under way go on, and the next start takes them up again. The log goes to stdout; every decision
about a task is a line of it.

--config names a JSON file:
  {"listen": "127.0.0.1:7080",
   "store": "/var/lib/migratefs-scheduler",            the queue: a folder of its own
   "topology": "/etc/migratefs/topology.json",         hosts, switches, links (docs/SCHEDULER.md), or the object itself
   "limits": {"per-host": 2, "per-link": 4,            migrations under way
              "share": 0.8,                            of a link's capacity that admission counts on
              "tasks": 10000, "attempts": 3, "answer-wait": "1h",
              "moves-per-host": 1, "vmm-time": "10s", "first-write-wait": "30s"},
   "drivers": {"libvirt": {"command": ["/usr/local/bin/move-vm"], "rollback": ["/usr/local/bin/stay-vm"],
                           "timeout": "10m"}},
   "default-driver": "libvirt",                        without it tasks move disks only (driver "none")
   "hot-spots": "/etc/migratefs/hot-spots.json",       docs/HOTSPOTS.md, or the object itself
   "tls": {"ca": "ca.pem", "cert": "host.pem", "key": "host.key"}}
Only "store" and "topology" are required. A relative path is relative to the file.

A driver gets MIGRATEFS_TASK, _VM, _IMAGES (one a line), _SOURCE, _TARGET, _MIGRATION, _ATTEMPT and _DEADLINE in its
environment, and ends with 0 when the VM runs on the target.

Example:
  migratefs scheduler --config /etc/migratefs/scheduler.json`;

interface SchedulerFlags {
  readonly config: string;
  readonly logLevel: LogLevel;
}

const scheduler = async ({ config, logLevel }: SchedulerFlags): Promise<void> => {
  // Loaded here, so that the client commands start without the queue and its libraries.
  const { runScheduler } = await import('../../scheduler-daemon.js');
  await runScheduler({ config, logLevel, logPretty: process.stdout.isTTY === true });
};

export const schedulerCommand = (): Command =>
  new Command('scheduler')
    .description('run the Migrations Scheduler: a queue of tasks with windows and deadlines')
    .addOption(new Option('--config <file>', 'JSON file, see below').makeOptionMandatory())
    .addOption(new Option('--log-level <level>', 'what to log').choices(LOG_LEVELS).default('info'))
    .addHelpText('after', HELP)
    .action(scheduler);
