/** Answers that list things, as many as fit in one message. */
import type { Bytes } from '../leaves/units.js';
import { bytes, MiB } from '../leaves/units.js';

/** Bytes of the items of one answer; with the largest item it is well below what a message may have. */
const PAGE_BYTES_MAX = bytes(4 * MiB);
const TOKEN_LENGTH_MAX = 256;

/** An upper bound: names of fields and digits take more than their encoding. */
const sizeOf = (message: object): number => Buffer.byteLength(JSON.stringify(message));

/** The first messages that fit in one answer; one at least, or nothing would ever come. */
export const fitting = <Message extends object>(
  messages: readonly Message[],
  bytesMax = PAGE_BYTES_MAX,
): readonly Message[] => {
  let size = 0;
  const end = messages.findIndex((message, at) => {
    size += sizeOf(message);
    return at > 0 && size > bytesMax;
  });
  return end === -1 ? messages : messages.slice(0, end);
};

/** What every request for a list says. */
export interface PageRequest {
  /** Of the answer before; empty: from the beginning. */
  readonly pageToken: string;
}

interface Page<Message> {
  readonly messages: readonly Message[];
  /** Where to go on; empty: that was all. */
  readonly nextPageToken: string;
}

/**
 * A page of `items` in the order of `keyOf`, from behind the key `token`. What comes or goes between two pages neither
 * repeats nor hides another item.
 */
export const pageOf = <Item, Message extends object>(
  items: readonly Item[],
  keyOf: (item: Item) => string,
  messageOf: (item: Item) => Message,
  token: string,
  bytesMax?: Bytes,
): Page<Message> => {
  const after = token.slice(0, TOKEN_LENGTH_MAX);
  const rest = items
    .map((item) => ({ key: keyOf(item), item }))
    .filter(({ key }) => key > after)
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const messages = fitting(
    rest.map(({ item }) => messageOf(item)),
    bytesMax,
  );
  const nextPageToken = messages.length < rest.length ? rest[messages.length - 1]!.key : '';
  return { messages, nextPageToken };
};

/** The items of all pages, one after the other. */
export const allPages = async <Item>(
  ask: (pageToken: string) => Promise<{ readonly items: readonly Item[]; readonly nextPageToken: string }>,
): Promise<readonly Item[]> => {
  const all: Item[] = [];
  for (let token = ''; ; ) {
    const { items, nextPageToken } = await ask(token);
    all.push(...items);
    if (nextPageToken === '' || nextPageToken === token) return all;
    token = nextPageToken;
  }
};
