import { DirtyBitmap } from '../../fs/dirty-bitmap.js';
import type { ImageSlot } from '../../fs/image-table.js';
import { WrittenBlocks } from '../../fs/written-blocks.js';
import type { LaneMarks } from '../stream-messages.js';

/** Where writes of a lane to one image are marked when they are lost, and counted. */
export interface LaneTracks {
  readonly bitmap: DirtyBitmap;
  readonly written: WrittenBlocks;
}

/** Those of the images of a lane, by slot. */
export const laneTracks = (images: readonly LaneMarks[]): Map<ImageSlot, LaneTracks> =>
  new Map(
    images.map(({ slot, bitmap, written, blockSize }) => [
      slot,
      { bitmap: new DirtyBitmap(bitmap, blockSize), written: new WrittenBlocks(written, blockSize) },
    ]),
  );
