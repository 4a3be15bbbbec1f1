// Generates the static protobuf code of the block stream from proto/, when proto/ or this script is newer.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const source = join(root, 'proto/data.proto');
const folder = join(root, 'src/replica/wire/generated');
const code = join(folder, 'data.js');
const types = join(folder, 'data.d.ts');

const changedAt = Math.max(statSync(source).mtimeMs, statSync(fileURLToPath(import.meta.url)).mtimeMs);

if (!existsSync(types) || statSync(types).mtimeMs < changedAt) {
  const bin = dirname(createRequire(import.meta.url).resolve('protobufjs-cli/package.json'));
  mkdirSync(folder, { recursive: true });
  execFileSync(process.execPath, [
    join(bin, 'bin/pbjs'),
    '-t',
    'static-module',
    '-w',
    'es6',
    '--no-service',
    '--no-delimited',
    '--no-verify',
    '--force-number',
    '-o',
    code,
    source,
  ]);
  // Node resolves ES modules by full file name.
  // A 64-bit field that is absent is the number 0: --force-number says so in the types only.
  writeFileSync(
    code,
    readFileSync(code, 'utf8')
      .replace('"protobufjs/minimal"', '"protobufjs/minimal.js"')
      .replaceAll(/\$util\.Long \? \$util\.Long\.fromBits\(0,0,(?:true|false)\) : 0/g, '0'),
  );
  execFileSync(process.execPath, [join(bin, 'bin/pbts'), '-o', types, code]);
}
