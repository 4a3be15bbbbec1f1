/** Daemons on one machine behind one switch, and a scheduler for them whose drivers leave a trace. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './pair.js';
import { startHost } from './pair.js';
import type { Teardown } from './scratch.js';
import { scratchDir } from './scratch.js';
import { TestScheduler } from './test-scheduler.js';

/** What the command of a driver wrote: it began, it succeeded, it was rolled back. */
export interface DriverTrace {
  readonly what: 'begun' | 'moved' | 'rolled-back';
  readonly task: string;
  readonly attempt: number;
}

export interface Cloud {
  readonly names: readonly string[];
  readonly hosts: ReadonlyMap<string, Host>;
  readonly scheduler: TestScheduler;
  /** In the order of writing. */
  traces(): readonly DriverTrace[];
}

/** As many bytes as a write to the resumed VM's first disk; at its end, so that the rest can be compared. */
export const RESUME_BYTES = 512;

const trace = (what: DriverTrace['what'], file: string): string =>
  `echo "${what} $MIGRATEFS_TASK $MIGRATEFS_ATTEMPT" >>"${file}"`;

export interface CloudOptions {
  readonly hosts: number;
  readonly limits?: object;
  readonly daemonArgs?: readonly string[];
  readonly config?: object;
  /** Seconds that a move takes. */
  readonly moveTime?: number;
}

/**
 * Drivers: `resume` moves and lets the VM write on the target, `silent` moves only, `broken` fails and is rolled back,
 * `stuck` takes a minute.
 */
export const startCloud = async (t: Teardown, options: CloudOptions): Promise<Cloud> => {
  const folder = scratchDir(t, 'cloud');
  const names = Array.from({ length: options.hosts }, (_, index) => `host-${index}`);
  const started = await Promise.all(
    names.map((name) =>
      startHost(t, {
        imageDir: join(folder, name, 'images'),
        mountpoint: join(folder, name, 'mount'),
        extraArgs: options.daemonArgs ?? [],
      }),
    ),
  );
  const hosts = new Map(names.map((name, index) => [name, started[index]!]));
  const traceFile = join(folder, 'trace');
  mkdirSync(folder, { recursive: true });
  appendFileSync(traceFile, '');
  const script = (name: string, ...lines: string[]): string[] => {
    const path = join(folder, `${name}.sh`);
    if (!existsSync(path)) writeFileSync(path, `set -e\n${lines.join('\n')}\n`);
    return ['/bin/sh', path];
  };
  const { moveTime = 0.05 } = options;
  const resume =
    `dd if=/dev/zero of="${folder}/$MIGRATEFS_TARGET/mount/$(echo "$MIGRATEFS_IMAGES" | head -n 1)" ` +
    `bs=${RESUME_BYTES} count=1 conv=notrunc status=none`;
  const begun = trace('begun', traceFile);
  const moved = trace('moved', traceFile);
  const rollback = script('rollback', trace('rolled-back', traceFile));
  const drivers = {
    resume: { command: script('resume', begun, `sleep ${moveTime}`, resume, moved), rollback },
    silent: { command: script('silent', begun, `sleep ${moveTime}`, moved), rollback },
    broken: { command: script('broken', begun, 'echo "no such domain" >&2', 'exit 3'), rollback },
    stuck: { command: script('stuck', begun, 'sleep 60', moved), rollback },
  };
  const scheduler = await TestScheduler.start(t, {
    topology: {
      hosts: [...hosts].map(([name, { daemon }]) => ({
        name,
        control: daemon.controlAddress,
        data: daemon.dataAddress,
      })),
      switches: ['tor'],
      links: names.map((name) => ({ name: `up-${name}`, between: [name, 'tor'], capacity: '10Gbit/s' })),
    },
    drivers,
    limits: { 'vmm-time': '100ms', 'first-write-wait': '300ms', ...options.limits },
    ...options.config,
  });
  const traces = (): readonly DriverTrace[] =>
    readFileSync(traceFile, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => {
        const [what, task, attempt] = line.split(' ') as [DriverTrace['what'], string, string];
        return { what, task, attempt: Number(attempt) };
      });
  return { names, hosts, scheduler, traces };
};
