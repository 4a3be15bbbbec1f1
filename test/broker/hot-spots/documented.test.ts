/** The examples of docs/HOTSPOTS.md are accepted by those they are for. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { hotSpotsConfigOf } from '../../../src/broker/hot-spots/config.js';
import { runOk } from '../../support/run.js';
import { scratchDir } from '../../support/scratch.js';

const PAGE = readFileSync(new URL('../../../../docs/HOTSPOTS.md', import.meta.url), 'utf8');

const blocks = (language: string): readonly string[] =>
  [...PAGE.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(([, text]) => text!);

t.test('every configuration is one, and what it calls a default is', async (t) => {
  const configs = blocks('json').map((text) => JSON.parse(text) as Record<string, unknown>);
  t.strictSame(
    configs.flatMap((config) => Object.keys(config)),
    ['thresholds', 'interfaces', 'prometheus', 'alerts'],
  );
  const merged = Object.assign({}, ...configs) as object;
  const config = hotSpotsConfigOf(merged, true);
  t.strictSame(config.thresholds, hotSpotsConfigOf({}, true).thresholds);
  t.equal(config.prometheus[0]!.queries.length, 2);
});

t.test('Prometheus and Alertmanager accept theirs', async (t) => {
  const folder = scratchDir(t);
  const files = blocks('yaml').map((text) => {
    const file = join(folder, /^# (\S+)\n/.exec(text)![1]!);
    writeFileSync(file, text);
    return file;
  });
  t.equal(files.length, 2);
  t.match((await runOk('promtool', ['check', 'rules', files[0]!])).stdout, /SUCCESS: 1 rules found/);
  const { stdout } = await runOk('amtool', ['check-config', files[1]!]);
  t.match(stdout, /SUCCESS/);
  t.match(stdout, /1 receivers/);
});
