import fc from 'fast-check';
import t from 'tap';
import { systemClock } from '../../src/leaves/clock.js';
import type { BytesPerSecond } from '../../src/leaves/units.js';
import { bytesPerSecond, MiB, UNLIMITED } from '../../src/leaves/units.js';
import { Limits } from '../../src/replica/source/limits.js';
import { scratchDir } from '../support/scratch.js';
import { makeImage, TestHost } from './source-world.js';

const rate = fc.oneof(fc.constant(UNLIMITED), fc.integer({ min: 1, max: 1e9 }).map(bytesPerSecond));
const change = fc.record({
  by: fc.constantFrom('operator' as const, 'broker' as const),
  limits: fc.record({ netLimit: rate, diskLimit: rate }, { requiredKeys: [] }),
});

t.test('the lower limit counts, and neither setter can touch the limit of the other', async (t) => {
  const result = fc.check(
    fc.property(rate, rate, fc.array(change), (netLimit, diskLimit, changes) => {
      const limits = new Limits(systemClock, { netLimit, diskLimit });
      const last = {
        operator: { netLimit, diskLimit },
        broker: { netLimit: UNLIMITED, diskLimit: UNLIMITED },
      };
      for (const each of changes) {
        limits.change(each.limits, each.by);
        Object.assign(last[each.by], each.limits);
        const { operator, broker } = last;
        const reported = limits.describe();
        const lower = (a: BytesPerSecond, b: BytesPerSecond): BytesPerSecond => (a < b ? a : b);
        if (limits.net.rate !== lower(operator.netLimit, broker.netLimit)) return false;
        if (limits.disk.rate !== lower(operator.diskLimit, broker.diskLimit)) return false;
        if (reported.netLimit !== limits.net.rate || reported.diskLimit !== limits.disk.rate) return false;
        if ((reported.operatorNetLimit ?? UNLIMITED) !== operator.netLimit) return false;
        if ((reported.operatorDiskLimit ?? UNLIMITED) !== operator.diskLimit) return false;
        if ((reported.brokerNetLimit ?? UNLIMITED) !== broker.netLimit) return false;
        if ((reported.brokerDiskLimit ?? UNLIMITED) !== broker.diskLimit) return false;
      }
      return true;
    }),
  );
  t.notOk(result.failed, fc.defaultReportMessage(result) ?? 'for any sequence of changes');
});

t.test('a setter that repeats its limit does not take a debt away', async (t) => {
  const limits = new Limits(systemClock, { netLimit: bytesPerSecond(100_000), diskLimit: UNLIMITED });
  t.equal(limits.net.take(10 * MiB, 'copy'), undefined, 'a debt of 100 s');
  const signal = AbortSignal.timeout(1300);
  let granted = false;
  const waiting = limits.net.take(1, 'copy', { signal })!.then(
    () => {
      granted = true;
    },
    () => {},
  );
  const again = setInterval(() => limits.change({ netLimit: bytesPerSecond(100_000) }, 'operator'), 100);
  t.teardown(() => clearInterval(again));
  await waiting;
  t.notOk(granted, 'a limit that is set again and again is still a limit');
});

t.test("a broker's limits on a running migration", async (t) => {
  const source = await TestHost.open(t, scratchDir(t, 'source'));
  const target = await TestHost.open(t, scratchDir(t, 'target'));
  makeImage(source, 'a.img', 4 * MiB);
  const guest = source.guest('a.img');
  t.teardown(() => guest.close());
  const operator = { netLimit: bytesPerSecond(MiB), diskLimit: UNLIMITED };
  const { id } = await source.start(['a.img'], target.replica.dataAddress, operator);
  const { replica } = source;

  const limited = await replica.setLimits(
    id,
    { netLimit: bytesPerSecond(50_000), diskLimit: bytesPerSecond(1) },
    'broker',
  );
  t.match(limited, { netLimit: 50_000, diskLimit: 1, operatorNetLimit: MiB, brokerNetLimit: 50_000 });
  t.notOk('operatorDiskLimit' in limited);
  // The first of these takes all that a second allows, for hours.
  await guest.write(0, Buffer.alloc(64 * 1024, 1));
  let done = false;
  const held = guest.write(0, Buffer.from('held')).then((result) => {
    done = true;
    return result;
  });
  const raised = await replica.setLimits(id, { netLimit: UNLIMITED });
  t.match(raised, { netLimit: 50_000, diskLimit: 1 }, "an operator does not release a broker's");
  t.notOk(done, 'the write waits');
  const released = await replica.setLimits(id, { netLimit: UNLIMITED, diskLimit: UNLIMITED }, 'broker');
  t.equal(released.netLimit, UNLIMITED);
  t.equal(released.diskLimit, UNLIMITED);
  t.notOk('brokerNetLimit' in released || 'brokerDiskLimit' in released);
  t.equal(await held, 4, 'released at once');
  await source.untilState(id, 'mirroring');
});
