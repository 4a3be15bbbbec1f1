import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import t from 'tap';
import { TRANSPORTS } from '../posix/compare.js';
import { TestDaemon } from '../support/test-daemon.js';

/** Names and attributes are cached for one second; the rest is for a slow machine. */
const SEEN_MAX_MS = 5000;
const LOOK_INTERVAL_MS = 50;

/** No event tells when a cache has run out: this looks until `seen`. */
const eventually = async (seen: () => boolean): Promise<boolean> => {
  const deadline = performance.now() + SEEN_MAX_MS;
  while (!seen()) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, LOOK_INTERVAL_MS));
  }
  return true;
};

for (const transport of TRANSPORTS) {
  void t.test(transport, async (t) => {
    const daemon = await TestDaemon.start(t, { transport });

    await t.test('what the mount writes is in the backing folder at once', async (t) => {
      writeFileSync(daemon.at('written'), 'through the mount');
      t.equal(readFileSync(daemon.below('written'), 'utf8'), 'through the mount');
      truncateSync(daemon.at('written'), 7);
      t.equal(readFileSync(daemon.below('written'), 'utf8'), 'through');
      renameSync(daemon.at('written'), daemon.at('renamed'));
      t.notOk(existsSync(daemon.below('written')));
      t.equal(readFileSync(daemon.below('renamed'), 'utf8'), 'through');
    });

    await t.test('a file made below appears at once', async (t) => {
      t.notOk(existsSync(daemon.at('new')), 'looked for before it was there');
      writeFileSync(daemon.below('new'), 'from below');
      t.equal(readFileSync(daemon.at('new'), 'utf8'), 'from below');
      mkdirSync(daemon.below('folder'));
      writeFileSync(daemon.at('folder/inside'), 'x');
      t.ok(existsSync(daemon.below('folder/inside')));
    });

    await t.test('a change made below is read within a second', async (t) => {
      writeFileSync(daemon.at('changing'), 'old contents');
      t.equal(readFileSync(daemon.at('changing'), 'utf8'), 'old contents');
      writeFileSync(daemon.below('changing'), 'new CONTENTS');
      t.ok(await eventually(() => readFileSync(daemon.at('changing'), 'utf8') === 'new CONTENTS'));
      appendFileSync(daemon.below('changing'), ', longer');
      t.ok(await eventually(() => readFileSync(daemon.at('changing'), 'utf8') === 'new CONTENTS, longer'));
      t.ok(await eventually(() => statSync(daemon.at('changing')).size === 20));
    });

    await t.test('attributes changed below are seen within a second', async (t) => {
      writeFileSync(daemon.at('attributes'), '');
      t.equal(statSync(daemon.at('attributes')).mode & 0o777, 0o644);
      chmodSync(daemon.below('attributes'), 0o600);
      utimesSync(daemon.below('attributes'), 1000, 2000);
      t.ok(await eventually(() => (statSync(daemon.at('attributes')).mode & 0o777) === 0o600));
      t.ok(await eventually(() => statSync(daemon.at('attributes')).mtimeMs === 2_000_000));
    });

    await t.test('a file removed or replaced below goes within a second', async (t) => {
      writeFileSync(daemon.at('removed'), 'x');
      unlinkSync(daemon.below('removed'));
      t.ok(await eventually(() => !existsSync(daemon.at('removed'))));
      writeFileSync(daemon.at('replaced'), 'first');
      writeFileSync(daemon.below('other'), 'second');
      renameSync(daemon.below('other'), daemon.below('replaced'));
      t.ok(await eventually(() => readFileSync(daemon.at('replaced'), 'utf8') === 'second'));
    });

    await daemon.stop();
  });
}
