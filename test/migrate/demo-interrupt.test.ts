/** Ctrl-C in the middle of the demo leaves no mount, process or file behind. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { guardProcess, mountsBelow, releaseProcess, scratchDir } from '../support/scratch.js';
import { within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const DEMO = fileURLToPath(new URL('../demo/demo.js', import.meta.url));
const TAG = 'MFS_DEMO_TEST';
const STEP_MAX_MS = 60_000;

/** Processes, beside this one, whose environment has the tag. */
const tagged = (value: string): readonly string[] =>
  readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return false;
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`${TAG}=${value}`);
    } catch {
      return false;
    }
  });

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  t.test(`${signal} while it migrates`, async (t) => {
    const folder = join(scratchDir(t, 'interrupt'), 'tmp');
    mkdirSync(folder);
    const child = spawn(process.execPath, [DEMO], {
      env: { ...process.env, TMPDIR: folder, [TAG]: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
      // Its own process group, as a terminal gives it: Ctrl-C reaches everybody in it.
      detached: true,
    });
    guardProcess(child.pid!);
    let said = '';
    const migrating = new Promise<void>((resolve) => {
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (/bulk.?copy/i.test(said)) resolve();
      });
    });
    const exited = once(child, 'exit') as Promise<[number | null]>;
    await within(
      Promise.race([
        migrating,
        exited.then(([code]) => {
          throw new Error(`the demo ended with ${code}: ${said}`);
        }),
      ]),
      STEP_MAX_MS,
      () => `the demo does not get to the migration: ${said}`,
    );
    t.ok(mountsBelow(folder).length > 0, 'it has mounts');
    process.kill(signal === 'SIGINT' ? -child.pid! : child.pid!, signal);
    const [code] = await within(exited, STEP_MAX_MS, () => 'the demo does not end');
    releaseProcess(child.pid!);
    t.equal(code, signal === 'SIGINT' ? 130 : 143, 'its exit status names the signal');
    t.same(mountsBelow(folder), [], 'no mount');
    await waitFor(() => tagged(folder).length === 0, 'no process');
    t.same(readdirSync(folder), [], 'no file');
  });
