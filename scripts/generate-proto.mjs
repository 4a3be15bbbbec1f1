// Generates static protobuf code from proto/, when proto/ or this script is newer: of the block stream with types, and of
// the control APIs with the tables of their services, so that no process reads .proto files or makes code when it starts.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const proto = (name) => join(root, 'proto', name);

const current = (results, sources) => {
  const changedAt = Math.max(
    ...[...sources, fileURLToPath(import.meta.url)].map((file) => statSync(file).mtimeMs),
  );
  return results.every((file) => existsSync(file) && statSync(file).mtimeMs >= changedAt);
};

const cli = (program, args) => {
  const bin = dirname(require.resolve('protobufjs-cli/package.json'));
  execFileSync(process.execPath, [join(bin, 'bin', program), ...args]);
};

const staticModule = (code, sources, options) => {
  mkdirSync(dirname(code), { recursive: true });
  cli('pbjs', [
    '-t',
    'static-module',
    '-w',
    'es6',
    '--no-service',
    '--no-delimited',
    '--no-verify',
    ...options,
    '-o',
    code,
    ...sources,
  ]);
  // Node resolves ES modules by full file name.
  return readFileSync(code, 'utf8').replace('"protobufjs/minimal"', '"protobufjs/minimal.js"');
};

const generateBlockStream = () => {
  const folder = join(root, 'src/replica/wire/generated');
  const code = join(folder, 'data.js');
  const types = join(folder, 'data.d.ts');
  const sources = [proto('data.proto')];
  if (current([code, types], sources)) return;
  // A root of its own: the default one is the block stream's, where a process loads both.
  const text = staticModule(code, sources, ['--force-number']);
  // A 64-bit field that is absent is the number 0: --force-number says so in the types only.
  writeFileSync(
    code,
    text.replaceAll(/\$util\.Long \? \$util\.Long\.fromBits\(0,0,(?:true|false)\) : 0/g, '0'),
  );
  cli('pbts', ['-o', types, code]);
};

const CONTROL_TYPES = `/** One message type. */
export interface MessageCodec {
  fromObject(object: object): object;
  encode(message: object): { finish(): Uint8Array };
  decode(bytes: Uint8Array): object;
  toObject(message: object, options: object): object;
}

export interface MethodRow {
  readonly request: MessageCodec;
  readonly response: MessageCodec;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

/** The methods of each service, by the service's full name. */
export declare const services: Readonly<Record<string, Readonly<Record<string, MethodRow>>>>;
`;

const generateControl = () => {
  const folder = join(root, 'src/control/generated');
  const code = join(folder, 'control.js');
  const types = join(folder, 'control.d.ts');
  const sources = ['migratefs.proto', 'broker.proto', 'scheduler.proto'].map(proto);
  if (current([code, types], sources)) return;
  // A root of its own: the default one is the block stream's, where a process loads both.
  const text = staticModule(code, sources, ['-r', 'control', '--no-comments', '--no-create', '--no-typeurl']);
  const { Root, Service } = require('protobufjs');
  const all = new Root().loadSync(sources);
  all.resolveAll();
  const codec = (type) => `$root${type.fullName}`;
  const row = (method) =>
    `request: ${codec(method.resolvedRequestType)}, response: ${codec(method.resolvedResponseType)}, ` +
    `requestStream: ${method.requestStream === true}, responseStream: ${method.responseStream === true}`;
  const tables = [];
  const visit = (namespace) => {
    for (const part of namespace.nestedArray ?? []) {
      if (part instanceof Service)
        tables.push(
          `  "${part.fullName.slice(1)}": {`,
          ...part.methodsArray.map((method) => `    ${method.name}: { ${row(method)} },`),
          '  },',
        );
      visit(part);
    }
  };
  visit(all);
  writeFileSync(code, `${text}\nexport const services = {\n${tables.join('\n')}\n};\n`);
  writeFileSync(types, CONTROL_TYPES);
};

generateBlockStream();
generateControl();
