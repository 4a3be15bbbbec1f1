/**
 * Where in a page memory should begin that page cache is copied to. Copying a page to memory that lies 1 to 63 bytes
 * further in its page is up to ten times slower on common x86 processors: `rep movsb` compares the low 12 bits of the
 * addresses and takes it for an overlap. Memory from malloc is such a case, as large pieces begin 16 bytes into a page.
 * Half a page is far from both.
 */
export const STAGGER_BYTES = 2048;

/** A buffer for data from files, with any content and memory of its own. */
export const staggeredBuffer = (length: number): Buffer =>
  Buffer.allocUnsafeSlow(STAGGER_BYTES + length).subarray(STAGGER_BYTES);
