import type { SegmentLoad } from '../../leaves/time-left.js';
import { SEGMENTS } from '../../leaves/time-left.js';
import { bytes } from '../../leaves/units.js';
import type { SourceImage } from './source-image.js';

/** How far the copier has come in a round: images before `image`, and of that one the blocks before `block`. */
export interface CopyPosition {
  image: number;
  block: number;
}

interface Part {
  readonly index: number;
  readonly image: SourceImage;
  readonly from: number;
  readonly to: number;
  /** Bytes. */
  allocated: number;
}

/** The images of a group cut into parts, to say where something is dirty and where guests write. */
export class Segments {
  readonly #parts: Part[];

  constructor(images: readonly SourceImage[]) {
    const total = images.reduce((sum, { pinned }) => sum + pinned.size, 0);
    this.#parts = images.flatMap((image, index) => {
      const { size, allocated } = image.pinned;
      const blocks = Math.ceil(size / image.bitmap.blockSize);
      const count = Math.max(1, Math.min(blocks, Math.round((SEGMENTS * size) / Math.max(total, 1))));
      const edge = (part: number): number => Math.floor((part * blocks) / count);
      return Array.from({ length: count }, (_, part) => {
        const [from, to] = [edge(part), edge(part + 1)];
        return { index, image, from, to, allocated: blocks > 0 ? (allocated * (to - from)) / blocks : 0 };
      });
    });
  }

  /** Takes what is dirty now for what is allocated: everything that holds data has been marked. */
  measureAllocated(): void {
    for (const part of this.#parts) part.allocated = dirtyBytes(part.image, part.from, part.to);
  }

  /** A part that the copier is in becomes two. */
  describe({ image, block }: CopyPosition): SegmentLoad[] {
    return this.#parts.flatMap((part) => {
      const at = part.index < image ? part.to : part.index > image ? part.from : block;
      const edges = at > part.from && at < part.to ? [part.from, at, part.to] : [part.from, part.to];
      return edges.slice(1).map((to, i) => segment(part, edges[i]!, to, edges[i]! >= at));
    });
  }
}

const segment = (
  { image, from: first, to: last, allocated }: Part,
  from: number,
  to: number,
  ahead: boolean,
) => {
  const share = last > first ? (to - from) / (last - first) : 1;
  const touched = image.written.blocksIn(from, to) * image.bitmap.blockSize;
  const dirty = dirtyBytes(image, from, to);
  return {
    ahead,
    // What guests have written since is allocated as well.
    allocated: bytes(Math.round(Math.max(allocated * share, touched, dirty))),
    dirty: bytes(dirty),
    touched: bytes(touched),
  };
};

const dirtyBytes = ({ bitmap }: SourceImage, from: number, to: number): number =>
  bitmap.dirtyIn(from, to) * bitmap.blockSize;
