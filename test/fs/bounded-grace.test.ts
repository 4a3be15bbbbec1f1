import t from 'tap';
import { GraceCounters } from '../../src/fs/image-table.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

t.test('G2: a grace period waits for whoever is inside the image', async (t) => {
  const grace = new GraceCounters();
  grace.enter(3, 7);
  let elapsed = false;
  const waiting = grace.elapsed([5, 7], turn).then(() => {
    elapsed = true;
  });
  for (let i = 0; i < 20; i++) await turn();
  t.notOk(elapsed, 'the call is still under way');
  grace.exit(3);
  await waiting;
  t.ok(elapsed);
});

t.test('a call that does not return does not hold up the grace period of another image', async (t) => {
  const grace = new GraceCounters();
  grace.enter(3, 7);
  await t.resolves(grace.elapsed([5], turn), 'another image');
  await t.resolves(grace.elapsed([], turn), 'no image');
  grace.exit(3);
});

t.test('whoever has left and entered another image is not waited for', async (t) => {
  const grace = new GraceCounters();
  grace.enter(0, 7);
  const waiting = grace.elapsed([7], turn);
  grace.exit(0);
  grace.enter(0, 8);
  await t.resolves(waiting, 'not held up by the call in image 8');
  grace.exit(0);
});
