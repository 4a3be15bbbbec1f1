import t from 'tap';
import { decisionPeriod } from '../../../src/broker/policy/period.js';
import { millis } from '../../../src/leaves/units.js';

const START = millis(1_700_000_000_000);
const after = (seconds: number) => millis(START + seconds * 1000);

t.test('a fiftieth of the time to the deadline, within 1 s to 60 s', async (t) => {
  t.equal(decisionPeriod({}, START, after(200)), 4_000);
  t.equal(decisionPeriod({}, START, after(20)), 1_000);
  t.equal(decisionPeriod({}, START, after(86_400)), 60_000);
  t.equal(decisionPeriod({}, START, millis(START - 5_000)), 1_000, 'late already');
});

t.test('the one that was asked for comes first; without a deadline there is one as well', async (t) => {
  t.equal(decisionPeriod({ period: millis(250) }, START, after(200)), 250);
  t.equal(decisionPeriod({}, START), 10_000);
});
