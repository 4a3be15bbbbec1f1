/**
 * `npm run test:races -- [--rounds 50] [--seed N]`: the moment of the first guest write on the target, with a
 * cancellation on either side or a lost connection within milliseconds of it. Attacks G1 (an acknowledged first write is on
 * the owner) and G3 (one owner, whoever wins).
 */
process.env['UV_THREADPOOL_SIZE'] = '32';

import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { isFinal } from '../../src/leaves/migration.js';
import { MiB } from '../../src/leaves/units.js';
import { withCleanup } from '../support/cleanup.js';
import { CutProxy } from '../support/cut-proxy.js';
import { identical, rewriteBlock, writeRefusal } from '../support/cutover.js';
import { recordOf } from '../support/debris.js';
import { makeSparseImage } from '../support/files.js';
import { migrate, startPair } from '../support/pair.js';
import { Random, seedFromEnvironment } from '../support/random.js';
import type { Teardown } from '../support/scratch.js';
import { StampWriter } from '../support/stamp-writer.js';
import { within } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const RIVALS = ['cancel', 'cancel at target', 'cut', 'cut and cancel', 'explicit cutover', 'pause'] as const;
const STAMPS = 2 * MiB;
/** From the end of a migration to the refusal of every writer at its source. */
const FENCED_MAX_MS = 10_000;

const { rounds, seed } = new Command('cutover-race')
  .description(
    'Races the first write on the target against cancellations and cuts; exit status 1 on an error.',
  )
  .option('--rounds <n>', 'migrations', Number, 50)
  .option('--seed <n>', 'repeats the choices of a run', Number, seedFromEnvironment())
  .parse()
  .opts<{ rounds: number; seed: number }>();

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const race = async (t: Teardown): Promise<number> => {
  const random = new Random(seed);
  const options = { extraArgs: ['--peer-timeout', '2s'] };
  const pair = await startPair(t, { source: options, target: options });
  const proxy = await CutProxy.start(t, pair.target.daemon.dataAddress);
  const { source, target } = pair;
  let failures = 0;
  for (let round = 1; round <= rounds; round++) {
    const image = `vm-${round}.raw`;
    const errors: string[] = [];
    makeSparseImage(
      source.daemon.below(image),
      STAMPS + MiB,
      [{ offset: STAMPS, length: MiB }],
      random.next(),
    );
    const stamps = new StampWriter({ offset: 0, length: STAMPS }, random.next());
    await stamps.start(source.daemon.at(image), 2);
    const migration = await migrate(t, pair, [image], { to: proxy.address, broker: 'off' });
    await migration.reaches('mirroring');
    const rival = random.pick(RIVALS);
    const [mine, theirs] = [random.below(12), random.below(12)];
    const first = sleep(mine).then(() =>
      rewriteBlock(source.daemon.below(image), target.daemon.at(image), STAMPS),
    );
    const taken = first.then(
      () => 'taken',
      (error: NodeJS.ErrnoException) => error.code ?? String(error),
    );
    await sleep(theirs);
    const ask = (call: Promise<unknown>): Promise<string> =>
      call.then(
        () => 'yes',
        (error: Error) => error.message,
      );
    const answers: string[] = [];
    if (rival.startsWith('cut')) {
      proxy.cut();
      if (rival === 'cut and cancel') answers.push(await ask(source.client.cancel(migration.id)));
      await sleep(random.below(400));
      proxy.heal();
    } else if (rival === 'cancel') answers.push(await ask(source.client.cancel(migration.id)));
    else if (rival === 'cancel at target') answers.push(await ask(target.client.cancel(migration.id)));
    else if (rival === 'explicit cutover') answers.push(await ask(source.client.cutover(migration.id)));
    else {
      answers.push(await ask(source.client.pause(migration.id)));
      await sleep(random.below(50));
      await ask(source.client.resume(migration.id));
    }
    const outcome = await taken;
    // What is still under way is ended by a first write, again and again as a guest would.
    for (let tries = 0; tries < 100 && !isFinal((await source.client.get(migration.id)).state); tries++) {
      await rewriteBlock(source.daemon.below(image), target.daemon.at(image), STAMPS).catch(() => undefined);
      await sleep(50);
    }
    const { state } = await source.client.get(migration.id);
    if (state !== 'completed') await stamps.stop();
    else
      await within(stamps.ended(), FENCED_MAX_MS, () => 'not fenced').catch(async () => {
        errors.push('G3: the source goes on taking writes');
        await stamps.stop();
      });
    const kept = state !== 'completed';
    if (!isFinal(state)) errors.push(`no end: ${state}`);
    if (kept && outcome === 'taken')
      errors.push('G1: the first write was acknowledged, the source kept the image');
    const refusals = [source, target].map(({ daemon }) =>
      existsSync(daemon.below(image)) ? writeRefusal(daemon.at(image)) : 'ENOENT',
    );
    if (!kept && !(await identical(source.daemon.below(image), target.daemon.below(image))))
      errors.push('G2: differs');
    const [atSource, atTarget] = await Promise.all(refusals);
    if (kept) {
      if (stamps.refusal) errors.push(`the guest met ${stamps.refusal.code}`);
      if (atSource !== '') errors.push(`G4: the source refuses writes: ${atSource}`);
      await waitFor(() => !existsSync(target.daemon.below(image)), 'gone').catch(() =>
        errors.push('G4: left on the target'),
      );
      const record = await recordOf(source.daemon.below(image));
      if (record !== '') errors.push(`G4: a record is left on the source: ${record}`);
    } else if (atSource !== 'EROFS' || atTarget !== '')
      errors.push(`G3: source ${atSource}, target ${atTarget}`);
    const { lost } = await stamps.check((kept ? source : target).daemon.at(image));
    if (lost.length > 0) errors.push(`G1: ${lost.slice(0, 3).join('; ')}`);
    say(
      `${errors.length === 0 ? 'ok  ' : 'FAIL'} ${round}: ${rival} at ${theirs} ms, write at ${mine} ms: ${outcome}; ${migration.states.join(' > ')}; ${answers.join()}`,
    );
    for (const error of errors) say(`       ${error}`);
    if (errors.length > 0) failures++;
    await Promise.all([source, target].map(({ daemon }) => rm(daemon.at(image), { force: true })));
  }
  say(`seed ${seed}: ${failures} of ${rounds} failed`);
  return failures;
};

process.exitCode = (await withCleanup(race)) > 0 ? 1 : 0;
