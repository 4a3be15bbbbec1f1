import assert from 'node:assert/strict';
import { close } from '../libc.js';
import type { InodeNumber } from '../stat-buffer.js';
import { ROOT_ID } from './protocol.js';

/**
 * An inode that the kernel knows: an O_PATH descriptor, so that renames, hard links and unlinking while open need
 * no bookkeeping, and the inode number is not reused while the kernel remembers it.
 */
export interface Node {
  readonly id: number;
  readonly fd: number;
  readonly device: number;
  readonly inode: InodeNumber;
  /** A name of it, with its NUL, and the folder that it was found in; empty for folders and files without one. */
  parentId: number;
  name: Uint8Array;
  /** References the kernel holds; it gives them back with FORGET. */
  lookups: number;
  /** The file's content as of the last cached open, see `contentStamp`; empty: unknown. */
  stamp: string;
  /** Open handles by how the kernel serves them, see `serveHandle`. */
  cachedHandles: number;
  directHandles: number;
  passedHandles: number;
  /** The kernel's name for the backing file while `passedHandles` is not 0. */
  backingId: number;
}

const NO_NAME = new Uint8Array(0);

/** Nodes by id and by (device, inode). Ids are never used twice. */
export class NodeTable {
  readonly root: Node;
  readonly #byId = new Map<number, Node>();
  readonly #devices = new Map<number, Map<InodeNumber, Node>>();
  #nextId = ROOT_ID;

  /** `rootFd` stays the caller's. */
  constructor(rootFd: number, device: number, inode: InodeNumber) {
    this.root = this.adopt(rootFd, device, inode);
    this.root.lookups = 1;
  }

  get size(): number {
    return this.#byId.size;
  }

  get(id: number): Node | undefined {
    return this.#byId.get(id);
  }

  /** Every node, the one known longest first. */
  oldest(): Iterable<Node> {
    return this.#byId.values();
  }

  /** Makes `node` the youngest. */
  renew(node: Node): void {
    this.#byId.delete(node.id);
    this.#byId.set(node.id, node);
  }

  find(device: number, inode: InodeNumber): Node | undefined {
    return this.#devices.get(device)?.get(inode);
  }

  /** Takes over the O_PATH descriptor of an inode that is not in the table. */
  adopt(fd: number, device: number, inode: InodeNumber): Node {
    const node: Node = {
      id: this.#nextId++,
      fd,
      device,
      inode,
      parentId: 0,
      name: NO_NAME,
      lookups: 0,
      stamp: '',
      cachedHandles: 0,
      directHandles: 0,
      passedHandles: 0,
      backingId: 0,
    };
    this.#byId.set(node.id, node);
    const inodes = this.#devices.get(device);
    if (inodes) {
      assert(!inodes.has(inode), 'inode adopted twice');
      inodes.set(inode, node);
    } else this.#devices.set(device, new Map([[inode, node]]));
    return node;
  }

  forget(id: number, lookups: number): void {
    const node = this.#byId.get(id);
    if (!node || node === this.root) return;
    assert(lookups <= node.lookups, `node ${id} forgotten more often than looked up`);
    node.lookups -= lookups;
    if (node.lookups > 0) return;
    this.#byId.delete(id);
    const inodes = this.#devices.get(node.device)!;
    inodes.delete(node.inode);
    if (inodes.size === 0) this.#devices.delete(node.device);
    close(node.fd);
  }

  /** Closes every descriptor but the root's. */
  close(): void {
    for (const node of this.#byId.values()) if (node !== this.root) close(node.fd);
    this.#byId.clear();
    this.#devices.clear();
  }
}
