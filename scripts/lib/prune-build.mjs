// Removes compiled files whose source is gone; the compiler leaves them, and the test runner would run them.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const root = process.argv[2] ?? '.';
const OUTPUT = /\.js(\.map)?$/;

for (const folder of ['src', 'test', 'bench']) {
  const built = join(root, 'build', folder);
  if (!existsSync(built)) continue;
  for (const entry of readdirSync(built, { recursive: true, encoding: 'utf8' })) {
    if (!OUTPUT.test(entry)) continue;
    const source = join(root, folder, entry.replace(OUTPUT, ''));
    if (!existsSync(`${source}.ts`) && !existsSync(`${source}.js`)) rmSync(join(built, entry));
  }
}
