/**
 * `npm run test:scheduler -- [--tasks 200] [--kills 20] [--hosts 3] [--seed N]`: tasks between real daemons, a scheduler
 * that is killed (SIGKILL) at random moments, and the proof that each task ended once and each VM was moved once.
 */
import { Command, InvalidArgumentError } from 'commander';
import { withCleanup } from '../support/cleanup.js';
import { seedFromEnvironment } from '../support/random.js';
import { runKills } from '../support/scheduler-kills.js';

const positive = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError('a whole number above 0 is needed');
  return value;
};

const say = (text: string): void => void process.stdout.write(`${text}\n`);

const options = new Command('test:scheduler')
  .option('--tasks <n>', 'tasks that are submitted', positive, 200)
  .option('--kills <n>', 'how often the scheduler is killed', positive, 20)
  .option('--hosts <n>', 'daemons', positive, 3)
  .option('--seed <n>', 'replays a run', positive, seedFromEnvironment())
  .parse()
  .opts<{ tasks: number; kills: number; hosts: number; seed: number }>();

say(`seed ${options.seed}`);
const { faults, ends, killedIn, seconds } = await withCleanup((t) => runKills(t, { ...options, say }));
say(`ended: ${JSON.stringify(ends)}`);
say(`states of tasks under way at the kills: ${JSON.stringify(killedIn)}`);
for (const fault of faults) say(`FAULT ${fault}`);
say(`${options.tasks} tasks, ${options.kills} kills, ${faults.length} faults in ${seconds.toFixed(0)} s`);
process.exitCode = faults.length === 0 ? 0 : 1;
