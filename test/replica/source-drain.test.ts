import t from 'tap';
import { systemClock } from '../../src/leaves/clock.js';
import { drainAndFlush } from '../../src/replica/source/cutover.js';

t.test('G2: behind the fence, what waits is sent before anything is drained', async (t) => {
  const steps: string[] = [];
  let send = (): void => {};
  const image = {
    name: 'a.img',
    index: 0,
    pinned: { fd: -1 },
    sender: {
      sent: () =>
        new Promise<void>((resolve) => {
          send = () => {
            steps.push('sent');
            resolve();
          };
        }),
    },
  };
  const stop = new Error('far enough');
  const wire = {
    inFlight: {
      drained: () => {
        steps.push('drained');
        return Promise.reject(stop);
      },
    },
  };
  const draining = drainAndFlush(
    { images: [image], clean: true } as never,
    wire as never,
    { clock: systemClock } as never,
    new AbortController().signal,
  );
  draining.catch(() => {});
  await new Promise((resolve) => setImmediate(resolve));
  t.same(steps, []);
  send();
  await t.rejects(draining, stop);
  t.same(steps, ['sent', 'drained']);
});
