// Exits 0 when node_modules already holds exactly what package-lock.json asks for, so that `npm ci` can be spared.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const root = process.argv[2] ?? '.';
const packages = (path) => JSON.parse(readFileSync(join(root, path), 'utf8')).packages;

let current = true;
try {
  const installed = packages('node_modules/.package-lock.json');
  for (const [path, wanted] of Object.entries(packages('package-lock.json'))) {
    if (path === '' || wanted.optional || wanted.link) continue;
    const found = installed[path];
    if (found?.version !== wanted.version || found?.integrity !== wanted.integrity) current = false;
  }
} catch {
  current = false;
}
process.exitCode = current ? 0 : 1;
