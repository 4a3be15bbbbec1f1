/** `node run-starter-process.js FOLDER COMMAND...`: starts the run of FOLDER, says so, and stays. It is meant to be killed. */
import { CommandRun } from '../../src/broker/scheduler/command-run.js';
import { systemClock } from '../../src/leaves/clock.js';

const [folder, ...command] = process.argv.slice(2);
await new CommandRun(folder!, systemClock).start(command, process.env);
process.stdout.write('started\n');
setInterval(() => {}, 60_000);
