/** Notifications to the kernel (include/uapi/linux/fuse.h): a fuse_out_header with a code, then the argument. */
import { putU64 } from './protocol.js';

const INVAL_INODE = 2;
const INVAL_ENTRY = 3;
const ARGUMENT_WORD = 4;
const INVAL_INODE_BYTES = 40;
const INVAL_ENTRY_BYTES = 32;

const notification = (code: number, length: number): { message: Uint8Array; words: Uint32Array } => {
  const words = new Uint32Array(Math.ceil(length / 4));
  words[0] = length;
  words[1] = code;
  return { message: new Uint8Array(words.buffer, 0, length), words };
};

/** FUSE_NOTIFY_INVAL_ENTRY: the kernel drops `name` (with its NUL) of the folder `parentId`. */
export const dropEntry = (parentId: number, name: Uint8Array): Uint8Array => {
  const { message, words } = notification(INVAL_ENTRY, INVAL_ENTRY_BYTES + name.length);
  putU64(words, ARGUMENT_WORD, parentId);
  words[ARGUMENT_WORD + 2] = name.length - 1;
  message.set(name, INVAL_ENTRY_BYTES);
  return message;
};

/**
 * FUSE_NOTIFY_INVAL_INODE: the kernel drops the attributes of an inode and its cached pages from `offset`; `length` 0:
 * all that follow. Writing it waits for pages that are being read or written.
 */
export const dropPages = (nodeId: number, offset: number, length: number): Uint8Array => {
  const { message, words } = notification(INVAL_INODE, INVAL_INODE_BYTES);
  putU64(words, ARGUMENT_WORD, nodeId);
  putU64(words, ARGUMENT_WORD + 2, offset);
  putU64(words, ARGUMENT_WORD + 4, length);
  return message;
};
