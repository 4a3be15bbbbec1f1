/** What ends a cutover just when the last flush is acknowledged: either nothing is fenced, or the offer is made. */
import { closeSync, fdatasync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import t from 'tap';
import { readRecord } from '../../src/fs/image-record.js';
import { MigrateFsError } from '../../src/leaves/errors.js';
import { KiB } from '../../src/leaves/units.js';
import { PeerConnection } from '../../src/replica/wire/peer-connection.js';
import { scratchDir } from '../support/scratch.js';
import { FakeTarget } from './source-fake-target.js';
import { makeImage, TestHost } from './source-world.js';

const SIZE = 64 * KiB;
const EROFS = -30;
/** More than lie between the acknowledgement and the offer. */
const STEPS_MAX = 12;

/** Calls `act` after that many steps of the queue of promises. */
const afterSteps = async (steps: number, act: () => void): Promise<void> => {
  for (let i = 0; i < steps; i++) await undefined;
  act();
};

const ENDS: Record<string, (source: TestHost, id: string, connection: PeerConnection) => void> = {
  lost: (_source, _id, connection) => connection.destroy(new MigrateFsError('UNAVAILABLE', 'lost')),
  cancelled: (source, id) => void source.replica.cancel(id).catch(() => undefined),
};

for (const [how, end] of Object.entries(ENDS))
  t.test(`G1 G3: ${how} at any step between the last acknowledgement and the offer`, async (t) => {
    const source = await TestHost.open(t, scratchDir(t, 'source'));
    let onAck: (connection: PeerConnection) => void = () => undefined;
    const connect = PeerConnection.connect.bind(PeerConnection);
    t.capture(PeerConnection, 'connect', async (options: Parameters<typeof connect>[0]) => {
      const connection = await connect(options);
      const onFrame = connection.onFrame.bind(connection);
      connection.onFrame = (handler) =>
        onFrame((frame, payload) => {
          handler(frame, payload);
          if (frame.body === 'ack') onAck(connection);
        });
      return connection;
    });
    let offered = 0;
    for (let steps = 0; steps <= STEPS_MAX; steps++) {
      const name = `${steps}.img`;
      makeImage(source, name, SIZE);
      const fd = openSync(source.path(name), 'r');
      const guest = source.guest(name);
      const target = await FakeTarget.open(t);
      const { id } = await source.start([name], target.address);
      await source.untilState(id, 'mirroring');
      // The first flush of a cutover is made while guests write, the second behind the fence.
      let flushes = 0;
      target.holds = ({ body }) => body === 'sync' && ++flushes === 2;
      const fenced = new Promise<void>((resolve) => {
        target.onFrame = (frame) => {
          if (flushes === 1 && frame.body === 'sync') resolve();
          if (frame.body === 'cutoverOffer') target.send({ cutoverTaken: {} });
        };
      });
      const asked = source.replica.cutover(id).catch(() => undefined);
      await fenced;
      const write = guest.write(0, Buffer.alloc(SIZE, 9));
      await promisify(fdatasync)(fd);
      onAck = (connection) => {
        onAck = () => undefined;
        void afterSteps(steps, () => end(source, id, connection));
      };
      target.release();
      const result = await write;
      const role = readRecord(fd)?.role;
      if (result === EROFS) {
        t.equal(role, 'fenced', `${steps}: refused by a fenced image`);
        await source.untilState(id, 'completed');
        offered++;
      } else {
        t.equal(result, SIZE);
        t.equal(role, undefined, `${steps}: accepted, so the image is not offered`);
        await source.replica.cancel(id);
      }
      await asked;
      guest.close();
      closeSync(fd);
    }
    t.ok(offered > 0 && offered <= STEPS_MAX, `offered in ${offered} of ${STEPS_MAX + 1}`);
  });
