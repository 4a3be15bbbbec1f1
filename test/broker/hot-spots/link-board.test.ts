import fc from 'fast-check';
import t from 'tap';
import type { Evidence, Report } from '../../../src/broker/hot-spots/link-board.js';
import { LinkBoard, mergedLoad } from '../../../src/broker/hot-spots/link-board.js';
import type { LinkLoad } from '../../../src/leaves/hot-spots.js';
import { millis } from '../../../src/leaves/units.js';
import { ManualClock } from '../../support/manual-clock.js';

const quiet = (): void => undefined;

const load = (state: 'cool' | 'own' | 'hot', more: Partial<LinkLoad> = {}): LinkLoad => ({
  link: 'tor1',
  at: millis(0),
  saturated: state !== 'cool',
  hot: state === 'hot',
  source: 'test',
  ...more,
});

const report = (evidence: Evidence, state: 'cool' | 'own' | 'hot', more: Partial<LinkLoad> = {}): Report => ({
  evidence,
  load: load(state, more),
});

t.test('the worst report on a link counts, then the newest', async (t) => {
  t.match(mergedLoad([report('measured-apart', 'cool'), report('alert', 'hot')]), { hot: true });
  t.match(
    mergedLoad([report('alert', 'hot'), report('measured-apart', 'own')]),
    { hot: true },
    'an alert stands',
  );
  t.match(
    mergedLoad([
      report('measured', 'cool', { at: millis(1) }),
      report('measured', 'cool', { at: millis(2) }),
    ]),
    { at: 2 },
  );
  t.equal(mergedLoad([]), undefined);
});

t.test('a measurement that cannot tell whose traffic it is yields to one that can', async (t) => {
  t.match(mergedLoad([report('measured', 'hot'), report('measured-apart', 'own')]), {
    saturated: true,
    hot: false,
  });
  t.match(
    mergedLoad([report('measured', 'hot'), report('measured-apart', 'cool')]),
    { hot: true },
    'a host that does not fill the link does not excuse it',
  );
  t.match(mergedLoad([report('measured', 'hot')]), { hot: true }, 'unknown counts as hot');
});

t.test('the order of reports does not matter', async () => {
  const reports = fc.array(
    fc.record({
      evidence: fc.constantFrom<Evidence>('alert', 'measured', 'measured-apart'),
      state: fc.constantFrom<'cool' | 'own' | 'hot'>('cool', 'own', 'hot'),
    }),
    { minLength: 1, maxLength: 5 },
  );
  fc.assert(
    fc.property(reports, (items) => {
      const all = items.map(({ evidence, state }) => report(evidence, state));
      const [one, other] = [mergedLoad(all)!, mergedLoad([...all].reverse())!];
      return one.hot === other.hot && one.saturated === other.saturated && (!one.hot || one.saturated);
    }),
  );
});

t.test('listeners hear of changes only, and of what nobody reports any more', async (t) => {
  const clock = new ManualClock(1_000_000);
  using board = new LinkBoard(clock, quiet);
  const heard: [string, boolean, boolean][] = [];
  board.watch(({ link, saturated, hot }) => heard.push([link, saturated, hot]));
  const say = (state: 'cool' | 'own' | 'hot'): void =>
    board.report('a', report('measured-apart', state), millis(4500));
  say('cool');
  t.strictSame(heard, [], 'an idle link is no news');
  say('own');
  say('own');
  say('hot');
  t.strictSame(heard, [
    ['tor1', true, false],
    ['tor1', true, true],
  ]);
  await clock.advance(4499);
  t.match(board.loads(), [{ link: 'tor1', hot: true }]);
  await clock.advance(1);
  t.strictSame(board.loads(), [], 'it is left out the moment it is stale');
  await clock.advance(1000);
  t.strictSame(heard.at(-1), ['tor1', false, false]);
  t.equal(heard.length, 3);
});

t.test('a withdrawn report leaves what others say', async (t) => {
  using board = new LinkBoard(new ManualClock(), quiet);
  board.report('a', report('alert', 'hot'), millis(1000));
  board.report('b', report('alert', 'hot'), millis(1000));
  board.withdraw('a', 'tor1');
  t.match(board.loads(), [{ hot: true }]);
  board.withdraw('b', 'tor1');
  board.withdraw('b', 'nobody');
  t.strictSame(board.loads(), []);
});

t.test('links are bounded, and that is said once', async (t) => {
  const lines: string[] = [];
  const clock = new ManualClock();
  using board = new LinkBoard(clock, (level, message) => level === 'warn' && lines.push(message));
  for (let i = 0; i < 5000; i++)
    board.report('a', report('measured', 'cool', { link: `tor${i}` }), millis(1000));
  t.equal(board.loads().length, 4096);
  t.equal(lines.length, 1);
  await clock.advance(2000);
  board.report('a', report('measured', 'cool', { link: 'new' }), millis(1000));
  t.match(board.loads(), [{ link: 'new' }], 'what is stale makes room');
});

t.test('nothing is left of a closed board', async (t) => {
  const clock = new ManualClock();
  new LinkBoard(clock, quiet)[Symbol.dispose]();
  t.equal(clock.pending, 0);
});
