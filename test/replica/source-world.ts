/** A host without a kernel: real files, the real store and replica host, and guests that call ImageIo themselves. */
import { randomBytes } from 'node:crypto';
import { closeSync, constants, existsSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MessagePort } from 'node:worker_threads';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { createBackingCalls } from '../../src/fs/backing-calls.js';
import { ImageIo, ROUTED } from '../../src/fs/image-io.js';
import { ImageRegistry } from '../../src/fs/image-registry.js';
import { ImageStoreService } from '../../src/fs/image-store-service.js';
import { GraceCounters, ImageTable } from '../../src/fs/image-table.js';
import type { RoutedRequest, ToParticipant } from '../../src/fs/participant.js';
import { StatBuffer } from '../../src/fs/stat-buffer.js';
import { systemClock } from '../../src/leaves/clock.js';
import type { MigrationRequest, MigrationSnapshot, MigrationState } from '../../src/leaves/migration.js';
import { servePort } from '../../src/leaves/port-rpc.js';
import type { Bytes, Millis } from '../../src/leaves/units.js';
import { bytes, KiB, UNLIMITED } from '../../src/leaves/units.js';
import { ReplicaHost } from '../../src/replica/replica-host.js';
import type { Teardown } from '../support/scratch.js';

const PARTICIPANT = 0;

type Change = RoutedRequest extends infer R
  ? R extends RoutedRequest
    ? Omit<R, 'reply' | 'slot' | 'fd'>
    : never
  : never;

/** An open image, as a VM sees it; every method resolves with the result of the call, or -errno. */
export class Guest {
  readonly #host: TestHost;
  readonly #fd: number;
  readonly #slot: number;

  constructor(host: TestHost, fd: number, slot: number) {
    this.#host = host;
    this.#fd = fd;
    this.#slot = slot;
  }

  get mode(): number {
    return this.#host.table.mode(this.#slot);
  }

  write(offset: number, data: Uint8Array): Promise<number> {
    const result = this.#host.io.write(this.#slot, this.#fd, data, data.length, offset);
    return this.#settle(result, { op: 'write', offset, payload: Uint8Array.from(data) });
  }

  truncate(size: number): Promise<number> {
    return this.#settle(this.#host.io.truncate(this.#slot, this.#fd, size), { op: 'truncate', size });
  }

  fallocate(mode: number, offset: number, length: number): Promise<number> {
    const result = this.#host.io.fallocate(this.#slot, this.#fd, mode, offset, length);
    return this.#settle(result, { op: 'fallocate', mode, offset, length });
  }

  fsync(): Promise<number> {
    const result = this.#host.io.fsync(this.#slot, this.#fd, true);
    return this.#settle(result, { op: 'fsync', datasync: true });
  }

  close(): void {
    this.#host.closed(this.#fd, this.#slot);
  }

  #settle(result: number, change: Change): Promise<number> {
    if (result !== ROUTED) return Promise.resolve(result);
    return this.#host.hand({ ...change, slot: this.#slot, fd: this.#fd } as Omit<RoutedRequest, 'reply'>);
  }
}

export class TestHost {
  readonly dir: string;
  readonly replica: ReplicaHost;
  readonly io: ImageIo;
  readonly table: ImageTable;
  readonly log: string[] = [];
  readonly #registry: ImageRegistry;
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, (result: number) => void>();
  #next = 1;

  private constructor(dir: string, world: World, replica: ReplicaHost, log: string[]) {
    this.dir = dir;
    this.log = log;
    this.replica = replica;
    this.io = world.io;
    this.table = world.table;
    this.#registry = world.registry;
    this.#port = world.port;
    world.onResult((id, result) => {
      this.#waiting.get(id)?.(result);
      this.#waiting.delete(id);
    });
  }

  static async open(
    t: Teardown,
    dir: string,
    options: { port?: number; peerTimeout?: Millis; blockSize?: Bytes; mirrors?: boolean } = {},
  ): Promise<TestHost> {
    const world = makeWorld(dir, options.mirrors ?? false);
    const log: string[] = [];
    let ids = 0;
    const replica = await ReplicaHost.open({
      ends: world.ends,
      data: { host: '127.0.0.1', port: options.port ?? 0 },
      blockSize: options.blockSize ?? bytes(64 * KiB),
      peerTimeout: options.peerTimeout,
      netLimit: UNLIMITED,
      calls: createBackingCalls(),
      clock: systemClock,
      random: () => 0.5,
      newId: () => `id${process.pid}-${world.serial}-${ids++}`,
      hostname: 'test',
      ...(options.mirrors && { newToken: () => randomBytes(16) }),
      log: (level, message, fields) => {
        log.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
        if (process.env['MIGRATEFS_TEST_LOG']) process.stderr.write(`${dir} ${log.at(-1)}\n`);
      },
    });
    const host = new TestHost(dir, world, replica, log);
    t.teardown(async () => {
      await replica.shutdown();
      world.close();
    });
    return host;
  }

  guest(name: string): Guest {
    const fd = openSync(join(this.dir, name), constants.O_RDWR);
    const stat = new StatBuffer();
    stat.ofDescriptor(fd);
    return new Guest(this, fd, this.#registry.acquire(stat.device, stat.inode, fd));
  }

  closed(fd: number, slot: number): void {
    this.#registry.release(slot);
    closeSync(fd);
  }

  hand(request: Omit<RoutedRequest, 'reply'>): Promise<number> {
    const id = this.#next++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#port.postMessage({ ...request, reply: { kind: 'port', id } });
    });
  }

  start(
    images: readonly string[],
    target: string,
    more: Partial<MigrationRequest> = {},
  ): Promise<MigrationSnapshot> {
    return this.replica.start({
      images,
      target,
      cutover: 'explicit',
      netLimit: UNLIMITED,
      diskLimit: UNLIMITED,
      priority: 0,
      ...more,
    });
  }

  /** Resolves at the first snapshot of a migration that fits. */
  async until(id: string, fits: (snapshot: MigrationSnapshot) => boolean): Promise<MigrationSnapshot> {
    const now = (await this.replica.list()).find((snapshot) => snapshot.id === id);
    if (now && fits(now)) return now;
    return new Promise((resolve) => {
      const forget = this.replica.watch((snapshot) => {
        if (snapshot.id !== id || !fits(snapshot)) return;
        forget();
        resolve(snapshot);
      });
    });
  }

  untilState(id: string, ...states: MigrationState[]): Promise<MigrationSnapshot> {
    return this.until(id, ({ state }) => states.includes(state));
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  content(name: string): Buffer {
    return readFileSync(this.path(name));
  }

  has(name: string): boolean {
    return existsSync(this.path(name));
  }

  allocated(name: string): number {
    return statSync(this.path(name)).blocks * 512;
  }
}

interface World {
  readonly ends: import('../../src/fs/participant.js').FileSystemEnds;
  readonly table: ImageTable;
  readonly io: ImageIo;
  readonly registry: ImageRegistry;
  readonly port: MessagePort;
  readonly serial: number;
  onResult(handler: (id: number, result: number) => void): void;
  close(): void;
}

let serials = 0;

const makeWorld = (dir: string, mirrors: boolean): World => {
  const table = new ImageTable();
  const grace = new GraceCounters();
  const registry = new ImageRegistry(table, (error) => {
    throw error;
  });
  const root = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY);
  const store = new ImageStoreService(root, table, registry, () => {});
  const storePorts = new MessageChannel();
  const participantPorts = new MessageChannel();
  servePort(storePorts.port1, store);
  let onResult: (id: number, result: number) => void = () => {};
  const receive = (message: ToParticipant): void => {
    if (message.type === 'bitmap') io.announce(message);
    else onResult(message.id, message.result);
  };
  const io: ImageIo = new ImageIo(table, grace, PARTICIPANT, createBackingCalls(), () => {
    for (let got = receiveMessageOnPort(participantPorts.port1); got; ) {
      receive(got.message as ToParticipant);
      got = receiveMessageOnPort(participantPorts.port1);
    }
  });
  participantPorts.port1.on('message', receive);
  return {
    ends: {
      images: table.buffer,
      grace: grace.buffer,
      participants: [{ port: participantPorts.port2, wake: null }],
      mirrors,
      store: { port: storePorts.port2, wake: null },
    },
    table,
    io,
    registry,
    port: participantPorts.port1,
    serial: serials++,
    onResult: (handler) => {
      onResult = handler;
    },
    close: () => {
      store.close();
      closeSync(root);
      storePorts.port1.close();
      participantPorts.port1.close();
    },
  };
};

/** Seeded bytes, the same each time. */
export const pattern = (length: number, seed: number): Buffer => {
  const data = Buffer.alloc(length);
  let x = seed >>> 0 || 1;
  for (let at = 0; at + 4 <= length; at += 4) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    data.writeUInt32LE(x >>> 0, at);
  }
  return data;
};

export const makeImage = (host: TestHost, name: string, length: number, seed = 1): Buffer => {
  const data = pattern(length, seed);
  writeFileSync(host.path(name), data);
  return data;
};

/** Writes to random places until told to stop; resolves with the number of writes; throws when one fails. */
export const writeOn = (guest: Guest, size: number, seed: number): { stop(): Promise<number> } => {
  let stopped = false;
  let x = seed >>> 0 || 1;
  const random = (below: number): number => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
  const loop = async (): Promise<number> => {
    let count = 0;
    while (!stopped) {
      const length = 1 + random(32 * KiB);
      const offset = random(size - length);
      const result = await guest.write(offset, Buffer.alloc(length, 1 + random(255)));
      if (result !== length) throw new Error(`write answered ${result}`);
      count++;
      await new Promise((resolve) => setImmediate(resolve));
    }
    return count;
  };
  const running = loop();
  running.catch(() => {});
  return {
    stop: () => {
      stopped = true;
      return running;
    },
  };
};
