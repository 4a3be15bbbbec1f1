/**
 * Random changes to a tree that nobody else touches, with a model of it in memory: every call must succeed or fail as
 * the model says, and at the end the tree must be the model.
 */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { errnoName, libc } from '../posix/libc.js';
import { O_CREAT, O_EXCL, O_RDWR, O_TRUNC } from '../posix/workbench.js';
import type { Random } from '../support/random.js';

const AT_FDCWD = -100;
const FILE_BYTES_MAX = 64 * 1024;
const WRITE_BYTES_MAX = 12_000;
/** More entries than this in all, and something is removed instead of made. */
const ENTRIES_MAX = 400;
const OPEN_MAX = 8;
const PERMISSIONS = 0o7777;

interface Owned {
  mode: number;
  uid: number;
  gid: number;
}
interface ModelFile extends Owned {
  readonly kind: 'file';
  data: Buffer;
  links: number;
}
interface ModelFolder extends Owned {
  readonly kind: 'folder';
  readonly entries: Map<string, ModelNode>;
}
interface ModelLink {
  readonly kind: 'link';
  readonly target: string;
}
type ModelNode = ModelFile | ModelFolder | ModelLink;

interface Place {
  readonly path: string;
  readonly parent: ModelFolder;
  readonly name: string;
  readonly node: ModelNode;
}

const cPath = (path: string): Buffer => Buffer.from(`${path}\0`);

const newFolder = (): ModelFolder => ({ kind: 'folder', mode: 0o755, uid: 0, gid: 0, entries: new Map() });

const resized = (data: Buffer, size: number): Buffer => {
  if (size <= data.length) return Buffer.from(data.subarray(0, size));
  return Buffer.concat([data, Buffer.alloc(size - data.length)]);
};

export interface ModelTreeOptions {
  /** An existing empty folder. */
  readonly root: string;
  readonly random: Random;
  /** Hard links and files used after they were unlinked: not through libfuse 2. */
  readonly links: boolean;
}

export class ModelTree {
  readonly #root: string;
  readonly #random: Random;
  readonly #links: boolean;
  readonly #tree = newFolder();
  readonly #open: { readonly fd: number; readonly node: ModelFile }[] = [];
  #made = 0;

  constructor({ root, random, links }: ModelTreeOptions) {
    this.#root = root;
    this.#random = random;
    this.#links = links;
  }

  /** One random operation; throws when it is answered otherwise than the model says. */
  step(): void {
    const places = this.#places();
    if (places.length > ENTRIES_MAX) {
      this.#remove(this.#random.pick(places));
      return;
    }
    const kinds: readonly (() => void)[] = [
      () => this.#createFile(this.#anyFolder(places)),
      () => this.#createFile(this.#anyFolder(places)),
      () => this.#createFolder(this.#anyFolder(places)),
      () => this.#createLink(this.#anyFolder(places)),
      () => this.#withFile(places, (place, file) => this.#write(place, file)),
      () => this.#withFile(places, (place, file) => this.#write(place, file)),
      () => this.#withFile(places, (place, file) => this.#truncate(place, file)),
      () => this.#withFile(places, (place, file) => this.#checkFile(place.path, file)),
      () => this.#withOpen(),
      () => this.#withOpen(),
      () => places.length > 0 && this.#remove(this.#random.pick(places)),
      () => places.length > 1 && this.#rename(this.#random.pick(places), this.#random.pick(places)),
      () => places.length > 1 && this.#rename(this.#random.pick(places), this.#random.pick(places)),
      () => places.length > 0 && this.#setOwned(this.#random.pick(places)),
      () => places.length > 0 && this.#checkNode(this.#random.pick(places)),
      () => this.#checkFolder(this.#anyFolder(places)),
      ...(this.#links
        ? [() => this.#withFile(places, (place, file) => this.#hardLink(places, place, file))]
        : []),
    ];
    this.#random.pick(kinds)();
  }

  /** Compares the whole tree below `root`, the mount's or the backing folder's, with the model. */
  check(root: string): void {
    const at = (path: string): string => root + path.slice(this.#root.length);
    this.#checkFolder({ path: this.#root, node: this.#tree }, at);
    for (const place of this.#places()) {
      this.#checkNode(place, at);
      if (place.node.kind === 'folder') this.#checkFolder({ path: place.path, node: place.node }, at);
      if (place.node.kind === 'file') this.#checkFile(at(place.path), place.node);
    }
  }

  close(): void {
    for (const { fd } of this.#open.splice(0)) libc.close(fd);
  }

  #places(folder = this.#tree, path = this.#root): Place[] {
    const found: Place[] = [];
    for (const [name, node] of folder.entries) {
      const below = `${path}/${name}`;
      found.push({ path: below, parent: folder, name, node });
      if (node.kind === 'folder') found.push(...this.#places(node, below));
    }
    return found;
  }

  #anyFolder(places: readonly Place[]): { readonly path: string; readonly node: ModelFolder } {
    const folders = places.flatMap(({ path, node }) => (node.kind === 'folder' ? [{ path, node }] : []));
    return this.#random.pick([{ path: this.#root, node: this.#tree }, ...folders]);
  }

  #withFile(places: readonly Place[], body: (place: Place, file: ModelFile) => void): void {
    const files = places.filter(({ node }) => node.kind === 'file');
    if (files.length === 0) return;
    const place = this.#random.pick(files);
    body(place, place.node as ModelFile);
  }

  #newName(): string {
    return `${this.#random.pick(['a', 'some-name', 'ünï', 'n'.repeat(100)])}-${this.#made++}`;
  }

  #bytes(): Buffer {
    const bytes = Buffer.alloc(1 + this.#random.below(WRITE_BYTES_MAX), this.#random.next() & 0xff);
    bytes[0] = this.#random.next() & 0xff;
    return bytes;
  }

  #createFile({ path, node }: { path: string; node: ModelFolder }): void {
    const name = this.#newName();
    const file: ModelFile = { kind: 'file', mode: 0o640, uid: 0, gid: 0, data: Buffer.alloc(0), links: 1 };
    const fd = libc.openat(AT_FDCWD, cPath(`${path}/${name}`), O_RDWR | O_CREAT | O_EXCL, file.mode);
    this.#expect(`create ${path}/${name}`, Math.min(fd, 0), 0);
    node.entries.set(name, file);
    if (this.#random.chance(70)) this.#writeThrough(fd, file, `${path}/${name}`);
    this.#keep(fd, file);
  }

  /** Keeps some descriptors open across renames and removals. */
  #keep(fd: number, node: ModelFile): void {
    if (!this.#links || this.#random.chance(50)) {
      libc.close(fd);
      return;
    }
    this.#open.push({ fd, node });
    if (this.#open.length > OPEN_MAX) libc.close(this.#open.shift()!.fd);
  }

  #createFolder({ path, node }: { path: string; node: ModelFolder }): void {
    const name = this.#newName();
    this.#expect(`mkdir ${path}/${name}`, libc.mkdir(cPath(`${path}/${name}`), 0o755), 0);
    node.entries.set(name, newFolder());
    this.#expect('mkdir again', libc.mkdir(cPath(`${path}/${name}`), 0o755), 'EEXIST');
  }

  #createLink({ path, node }: { path: string; node: ModelFolder }): void {
    const name = this.#newName();
    const target = `../${'t'.repeat(this.#random.below(200))}`;
    this.#expect(`symlink ${path}/${name}`, libc.symlink(cPath(target), cPath(`${path}/${name}`)), 0);
    node.entries.set(name, { kind: 'link', target });
  }

  #write({ path }: Place, file: ModelFile): void {
    const truncate = this.#random.chance(20);
    const fd = libc.openat(AT_FDCWD, cPath(path), O_RDWR | (truncate ? O_TRUNC : 0), 0);
    this.#expect(`open ${path}`, Math.min(fd, 0), 0);
    if (truncate) file.data = Buffer.alloc(0);
    this.#writeThrough(fd, file, path);
    this.#keep(fd, file);
  }

  #writeThrough(fd: number, file: ModelFile, path: string): void {
    const bytes = this.#bytes();
    const offset = this.#random.below(FILE_BYTES_MAX - bytes.length);
    this.#expect(`write ${path}`, libc.pwrite(fd, bytes, bytes.length, offset), bytes.length);
    if (file.data.length < offset + bytes.length) file.data = resized(file.data, offset + bytes.length);
    bytes.copy(file.data, offset);
  }

  #withOpen(): void {
    if (this.#open.length === 0) return;
    const { fd, node } = this.#random.pick(this.#open);
    if (this.#random.chance(50)) {
      this.#writeThrough(fd, node, 'an open file');
      return;
    }
    const into = Buffer.alloc(FILE_BYTES_MAX);
    const length = libc.pread(fd, into, into.length, 0);
    this.#expect('read an open file', length, node.data.length);
    if (!into.subarray(0, length).equals(node.data)) throw new Error('an open file has other contents');
  }

  #truncate({ path }: Place, file: ModelFile): void {
    const size = this.#random.below(FILE_BYTES_MAX);
    this.#expect(`truncate ${path}`, libc.truncate(cPath(path), size), 0);
    file.data = resized(file.data, size);
  }

  #remove({ path, parent, name, node }: Place): void {
    if (node.kind === 'folder') {
      const empty = node.entries.size === 0;
      this.#expect(`rmdir ${path}`, libc.rmdir(cPath(path)), empty ? 0 : 'ENOTEMPTY');
      if (!empty) return;
    } else this.#expect(`unlink ${path}`, libc.unlink(cPath(path)), 0);
    if (node.kind === 'file') node.links--;
    parent.entries.delete(name);
  }

  #rename(from: Place, to: Place): void {
    // Half of them onto something that is there, half to a new name beside it.
    const onto = this.#random.chance(50) ? to : undefined;
    const name = onto ? to.name : this.#newName();
    const path = `${to.path.slice(0, -to.name.length)}${name}`;
    const result = libc.rename(cPath(from.path), cPath(path));
    this.#expect(`rename ${from.path} ${path}`, result, this.#renameAnswer(from, path, onto?.node));
    if (result < 0 || onto?.node === from.node) return;
    if (onto?.node.kind === 'file') onto.node.links--;
    from.parent.entries.delete(from.name);
    to.parent.entries.set(name, from.node);
  }

  /** rename(2), in the order in which Linux looks. */
  #renameAnswer(from: Place, path: string, onto: ModelNode | undefined): 0 | string {
    if (from.node.kind === 'folder' && path.startsWith(`${from.path}/`)) return 'EINVAL';
    if (!onto || onto === from.node) return 0;
    if (from.path.startsWith(`${path}/`)) return 'ENOTEMPTY';
    if (from.node.kind === 'folder') {
      if (onto.kind !== 'folder') return 'ENOTDIR';
      return onto.entries.size === 0 ? 0 : 'ENOTEMPTY';
    }
    return onto.kind === 'folder' ? 'EISDIR' : 0;
  }

  #hardLink(places: readonly Place[], { path }: Place, file: ModelFile): void {
    const folder = this.#anyFolder(places);
    const name = this.#newName();
    this.#expect(
      `link ${path} ${folder.path}/${name}`,
      libc.linkat(AT_FDCWD, cPath(path), AT_FDCWD, cPath(`${folder.path}/${name}`), 0),
      0,
    );
    file.links++;
    folder.node.entries.set(name, file);
  }

  #setOwned({ path, node }: Place): void {
    if (node.kind === 'link') return;
    const mode = this.#random.below(0o1000);
    if (this.#random.chance(50)) {
      this.#expect(`chmod ${path}`, libc.chmod(cPath(path), mode), 0);
      node.mode = mode;
    } else {
      node.uid = this.#random.below(100_000);
      node.gid = this.#random.below(100_000);
      this.#expect(`chown ${path}`, libc.chown(cPath(path), node.uid, node.gid), 0);
    }
  }

  #checkNode({ path, node }: Place, at = (same: string): string => same): void {
    const found = lstatSync(at(path));
    if (node.kind === 'link') {
      if (readlinkSync(at(path)) !== node.target) throw new Error(`${at(path)}: another target`);
      return;
    }
    const text = ({ mode, uid, gid }: Owned, size: number, links: number): string =>
      `mode ${(mode & PERMISSIONS).toString(8)} owner ${uid}:${gid} size ${size} links ${links}`;
    const [size, links] = node.kind === 'file' ? [node.data.length, node.links] : [0, 0];
    const wanted = text(node, size, links);
    const isFile = found.isFile();
    const seen = text(found, isFile ? found.size : 0, isFile ? found.nlink : 0);
    if (seen !== wanted) throw new Error(`${at(path)}: ${seen} instead of ${wanted}`);
  }

  #checkFile(path: string, file: ModelFile): void {
    if (!readFileSync(path).equals(file.data)) throw new Error(`${path}: other contents`);
  }

  #checkFolder(
    { path, node }: { readonly path: string; readonly node: ModelFolder },
    at = (same: string): string => same,
  ): void {
    const found = readdirSync(at(path)).sort().join(' ');
    const wanted = [...node.entries.keys()].sort().join(' ');
    if (found !== wanted) throw new Error(`${at(path)} lists ${found} instead of ${wanted}`);
  }

  #expect(what: string, result: number, wanted: number | string): void {
    const answer = result < 0 ? errnoName(-result) : result;
    if (answer !== wanted) throw new Error(`${what} answers ${answer} instead of ${wanted}`);
  }
}
