/** A stream that breaks or is left: nothing may overtake what its target may still be applying (G1, G2). */
import t from 'tap';
import type { ImageSlot } from '../../src/fs/image-table.js';
import { MirrorLane } from '../../src/fs/mirror-lane.js';
import { bytes } from '../../src/leaves/units.js';
import { ImageGroup, type ImageGroupOptions } from '../../src/replica/source/image-group.js';
import { Latch } from '../../src/replica/source/latch.js';
import type { SourceImage } from '../../src/replica/source/source-image.js';
import { SourceWire } from '../../src/replica/source/source-wire.js';
import type { StreamLink } from '../../src/replica/source/stream-link.js';
import type { FrameProperties } from '../../src/replica/wire/frame.js';
import type { PeerConnection } from '../../src/replica/wire/peer-connection.js';
import { ManualClock } from '../support/manual-clock.js';

const never = new Promise<never>(() => {});

const wireOver = (sent: FrameProperties[]): SourceWire => {
  const nothing = (): void => {};
  const wire = new SourceWire(new ManualClock(), {
    cutoverRequested: nothing,
    cutoverTaken: nothing,
    failed: nothing,
  });
  const connection = {
    onFrame: nothing,
    send: (frame: FrameProperties) => sent.push(frame),
    destroy: nothing,
  };
  wire.attach(connection as unknown as PeerConnection);
  return wire;
};

t.test('once the stream is closed no change goes over the connection, which is about to be', async (t) => {
  const sent: FrameProperties[] = [];
  const wire = wireOver(sent);
  const stream = { isClosed: false, closed: never, close: () => {} };
  wire.attachStream(stream as unknown as StreamLink);
  const outcomes: string[] = [];
  const change = { kind: 'data', image: 0, offset: 0, payload: new Uint8Array(8), mirror: false } as const;
  wire.send(change, (outcome) => outcomes.push(outcome));
  t.equal(sent.length, 1, 'as long as it is open they go');
  stream.isClosed = true;
  wire.send(change, (outcome) => outcomes.push(outcome));
  wire.send({ kind: 'sync', image: 0 }, (outcome) => outcomes.push(outcome));
  t.same(outcomes, ['lost', 'lost'], 'lost at once');
  t.equal(await wire.digest(0, 0, 8, false), null, 'nothing is compared');
  t.equal(sent.length, 1);
  t.ok(wire.open, 'the target can still say why');
  wire.closeStream();
  wire.send(change, () => {});
  t.equal(sent.length, 2, 'a stream that was given up here is no reason');
});

/** A group of two images beside a stream, what they do, and in which modes they were when a grace period was asked for. */
const laneWorld = (hasLane: boolean) => {
  const lane = new MirrorLane();
  const stream = {
    lane,
    hasLane,
    isClosed: false,
    setMarks: () => {},
    announcement: () => ({ buffer: lane.buffer, fd: -1, key: null, image: 0 }),
    laneDrained: () => never,
  };
  const modes = ['routed', 'routed'];
  const seen: string[] = [];
  const images = modes.map(
    (_, index) =>
      ({
        index,
        pinned: { slot: index as ImageSlot },
        locks: { passed: async () => {} },
        sender: { sent: async () => {} },
        clean: true,
        holdForLane: () => {},
        useLane: () => {},
        enterLane: () => modes.splice(index, 1, 'mirrored'),
        leaveLane: () => modes.splice(index, 1, 'routed'),
        unroute: () => modes.splice(index, 1, 'tracked'),
        idle: () => modes.splice(index, 1, 'idle'),
      }) as unknown as SourceImage,
  );
  const grace = {
    elapsed: (slots: readonly number[]) => {
      for (const slot of slots) seen.push(modes[slot]!);
      return never;
    },
  };
  const environment = { clock: new ManualClock(100_000), grace, turn: () => never, lanes: true };
  const group = new ImageGroup({
    environment,
    wire: { stream, inFlight: { drained: async () => {} } },
    progress: { netRate: bytes(0), sent: () => {}, acked: () => {} },
    latch: new Latch(),
    priority: 5,
    limited: () => false,
  } as unknown as ImageGroupOptions);
  group.images.push(...images);
  return { group, modes, seen };
};

const leavesOf = async (way: (group: ImageGroup) => void): Promise<string[]> => {
  const { group, modes, seen } = laneWorld(true);
  group.fast.tryEnter();
  while (modes.includes('routed')) await new Promise((resolve) => setImmediate(resolve));
  way(group);
  // Leaving begins by looking whether it is being entered.
  await new Promise((resolve) => setImmediate(resolve));
  return seen;
};

t.test('who waits for the threads that may be in the lane has closed it to others before', async (t) => {
  t.same(await leavesOf((group) => void group.fast.leave()), ['routed', 'routed']);
  t.same(await leavesOf((group) => group.unroute(false)), ['tracked', 'tracked']);
  t.same(await leavesOf((group) => group.idle()), ['idle', 'idle']);
});

t.test('a stream whose socket has too small a buffer has no lane', async (t) => {
  const { group } = laneWorld(false);
  group.fast.tryEnter();
  t.notOk(group.fast.active);
});
