import type { Node, NodeTable } from './node-table.js';
import { dropEntry } from './notification.js';

/** New nodes between two requests to the kernel, at most; each asks it to drop twice as many entries. */
const BATCH_MAX = 1024;

/**
 * Keeps the number of known inodes bounded. The kernel forgets an inode only when memory is short, and each costs a
 * descriptor here; beyond `max` it is asked to drop the names of those that it has known longest and that are not
 * open, upon which it forgets them. Folders stay: dropping one would tear out what is mounted below it.
 */
export class NodePruner {
  readonly #nodes: NodeTable;
  readonly #max: number;
  readonly #batch: number;
  readonly #send: (messages: Uint8Array[]) => void;
  #adopted = 0;

  /** `send` takes notifications to a thread that may wait: the kernel locks the folder, whose user may wait for us. */
  constructor(nodes: NodeTable, max: number, send: (messages: Uint8Array[]) => void) {
    this.#nodes = nodes;
    this.#max = max;
    this.#batch = Math.min(BATCH_MAX, Math.ceil(max / 8));
    this.#send = send;
  }

  /** Call for each new node. */
  adopted(): void {
    if (++this.#adopted < this.#batch || this.#nodes.size <= this.#max) return;
    this.#adopted = 0;
    const messages: Uint8Array[] = [];
    let left = this.#nodes.size;
    for (const node of this.#nodes.oldest()) {
      if (left-- === 0) break;
      if (!isPrunable(node)) continue;
      messages.push(dropEntry(node.parentId, node.name));
      // What is still known when its turn comes again was in use, or has another name by now.
      this.#nodes.renew(node);
      if (messages.length === 2 * this.#batch) break;
    }
    this.#send(messages);
  }
}

const isPrunable = (node: Node): boolean =>
  node.name.length > 0 && node.cachedHandles + node.directHandles + node.passedHandles === 0;
