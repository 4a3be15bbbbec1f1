/**
 * `node late-creator-process.js COUNTER FOLDER COUNT` opens FOLDER/0, FOLDER/1, ... with O_CREAT, each right after it has
 * written its number to COUNTER, then prints how many could not be opened.
 */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const [counter = '', folder = '', count = ''] = process.argv.slice(2);
const word = Buffer.alloc(8);
const shared = openSync(counter, 'r+');
let refused = 0;
for (let n = 0; n < Number(count); n++) {
  word.writeInt32LE(n + 1, 0);
  writeSync(shared, word, 0, 4, 0);
  try {
    closeSync(openSync(join(folder, String(n)), constants.O_CREAT | constants.O_RDWR, 0o600));
  } catch {
    refused++;
  }
  // Until the other one has made it too.
  do readSync(shared, word, 4, 4, 4);
  while (word.readInt32LE(4) <= n);
}
process.stdout.write(String(refused));
