/** The number of data workers follows the load, within its bounds. */
import { readdirSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import fc from 'fast-check';
import t from 'tap';
import { ActivityMark, ActivityTable } from '../../src/fs/kernel/activity-table.js';
import { CrewSize } from '../../src/fs/kernel/crew-size.js';
import { MiB, millis } from '../../src/leaves/units.js';
import { makeSparseImage } from '../support/files.js';
import { runFio } from '../support/fio.js';
import { TestDaemon } from '../support/test-daemon.js';
import { waitFor } from '../support/wait-for.js';

const LEAST = 2;
const MOST = 8;

const SLOW = millis(0.4);
const QUICK = millis(0.02);

const look = fc.record({
  busy: fc.nat(MOST),
  sameCall: fc.nat(MOST),
  queued: fc.boolean(),
  perRequest: fc.constantFrom(SLOW, QUICK),
});

t.test(
  'never fewer than the least, never more than the most, none added for a stuck image or for quick requests',
  async (t) => {
    const result = fc.check(
      fc.property(fc.array(look, { maxLength: 300 }), (looks) => {
        const size = new CrewSize(LEAST, MOST);
        let workers = LEAST;
        for (const { busy, sameCall, queued, perRequest } of looks) {
          const seen = {
            workers,
            busy: Math.min(busy, workers),
            sameCall: Math.min(sameCall, workers),
            queued,
            perRequest,
          };
          const change = size.decide(seen);
          const wanted = seen.sameCall === 0 && seen.busy === workers && queued && perRequest === SLOW;
          if (change > 0 && !wanted) return false;
          workers += change;
          if (workers < LEAST || workers > MOST) return false;
        }
        return true;
      }),
    );
    t.notOk(result.failed, fc.defaultReportMessage(result) ?? 'no counterexample');
  },
);

t.test('one busy look adds nothing, a busy load gets as many as there may be', async (t) => {
  const size = new CrewSize(LEAST, MOST);
  const busy = (workers: number) => ({
    workers,
    busy: workers,
    sameCall: 0,
    queued: true,
    perRequest: SLOW,
  });
  t.equal(size.decide(busy(2)), 0);
  t.equal(size.decide({ ...busy(2), busy: 1, queued: false }), 0);
  t.equal(size.decide(busy(2)), 0);
  t.equal(size.decide(busy(2)), 2);
  t.equal(size.decide(busy(4)), 4);
  t.equal(size.decide(busy(8)), 0);
});

t.test('quick requests add nothing, however long they keep every worker busy', async (t) => {
  const size = new CrewSize(LEAST, MOST);
  for (let i = 0; i < 10; i++)
    t.equal(size.decide({ workers: 2, busy: 2, sameCall: 0, queued: true, perRequest: QUICK }), 0);
});

t.test('requests of a thread are counted from look to look, also when the count begins anew', async (t) => {
  const table = new ActivityTable();
  const participant = 3;
  const mark = new ActivityMark(table.buffer, participant);
  const request = new Uint32Array(16);
  const serve = (): void => {
    mark.begin(0, request, 0);
    mark.end();
  };
  for (let i = 0; i < 5; i++) serve();
  const first = table.callsSince(participant, 0);
  t.equal(first.begun, 5);
  mark.begin(0, request, 0);
  const second = table.callsSince(participant, first.calls);
  t.equal(second.begun, 1, 'one that is under way counts once');
  mark.end();
  t.equal(table.callsSince(participant, second.calls).begun, 0);
  const beforeTheCountEnds = 2 ** 29 - 2;
  t.equal(table.callsSince(participant, beforeTheCountEnds).begun, 8);
});

const threads = (pid: number): number => readdirSync(`/proc/${pid}/task`).length;

t.test('a daemon under load has more threads, and gives them back', async (t) => {
  const daemon = await TestDaemon.start(t);
  makeSparseImage(daemon.below('vm.raw'), 16 * MiB);
  const before = threads(daemon.pid);
  const stop = new AbortController();
  t.teardown(() => stop.abort());
  const load = runFio(
    {
      filename: daemon.at('vm.raw'),
      rw: 'randwrite',
      bs: '64k',
      size: 16 * MiB,
      direct: 1,
      numjobs: 12,
      thread: true,
      group_reporting: true,
      time_based: true,
      runtime: 120,
    },
    stop.signal,
  ).catch((error: Error) => error);
  await waitFor(
    () => threads(daemon.pid) >= before + MOST - LEAST,
    'there are as many workers as there may be',
  );
  stop.abort();
  await load;
  // A worker that is one too many ends after its next request.
  await waitFor(
    async () => {
      await stat(daemon.at(`absent-${Math.random()}`)).catch(() => undefined);
      return threads(daemon.pid) <= before;
    },
    'the threads are as many as they were',
    60_000,
  );
  t.equal(threads(daemon.pid), before);
  await daemon.stop();
});
