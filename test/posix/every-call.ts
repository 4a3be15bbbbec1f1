/** Every call that takes a name, so that a condition of names (too long, a loop, no permission) meets them all. */
import {
  AT_SYMLINK_NOFOLLOW,
  type Name,
  O_CREAT,
  O_EXCL,
  O_RDONLY,
  O_WRONLY,
  type Workbench,
} from './workbench.js';

const S_IFIFO = 0o010_000;
const NOW = { seconds: 0, nanoseconds: 0x3fff_ffff };

export type Call = (w: Workbench, name: Name) => void;
export type Calls = Readonly<Record<string, Call>>;

/** Need the thing to be there, and follow it when it is a symbolic link. */
export const FOLLOWING_CALLS: Calls = {
  open: (w, name) => void w.open(name, O_RDONLY),
  'open for writing': (w, name) => void w.open(name, O_WRONLY),
  truncate: (w, name) => w.truncate(name, 1),
  chmod: (w, name) => w.chmod(name, 0o600),
  chown: (w, name) => w.chown(name, 7, 8),
  utimens: (w, name) => w.utimens(name, NOW, NOW),
  access: (w, name) => w.access(name, 0),
};

/** Need the thing to be there, and take a symbolic link for itself. */
export const LOOKING_CALLS: Calls = {
  stat: (w, name) => w.stat(name),
  lchown: (w, name) => w.lchown(name, 7, 8),
  'utimens of a link': (w, name) => w.utimens(name, NOW, NOW, AT_SYMLINK_NOFOLLOW),
  readlink: (w, name) => w.readlink(name),
  getxattr: (w, name) => w.getxattr(name, 'trusted.none'),
  setxattr: (w, name) => w.setxattr(name, 'trusted.some', 'x'),
  listxattr: (w, name) => w.listxattr(name),
  removexattr: (w, name) => w.removexattr(name, 'trusted.none'),
};

/** Take a name away: what they do with it needs permission to write in the folder. `spare` is another name there. */
export const REMOVING_CALLS: Calls = {
  unlink: (w, name) => w.unlink(name),
  rmdir: (w, name) => w.rmdir(name),
  'rename from': (w, name) => w.rename(name, `${name.toString()}.spare`),
};

/** Make a name. `source` must be a file in the workbench's folder. */
export const MAKING_CALLS: Calls = {
  create: (w, name) => void w.open(name, O_WRONLY | O_CREAT),
  'create exclusively': (w, name) => void w.open(name, O_WRONLY | O_CREAT | O_EXCL),
  mkdir: (w, name) => w.mkdir(name),
  mkfifo: (w, name) => w.mknod(name, S_IFIFO | 0o600),
  symlink: (w, name) => w.symlink('anything', name),
  link: (w, name) => w.link('source', name),
  'rename to': (w, name) => w.rename('source', name),
};

/** Of `MAKING_CALLS` those that refuse a name which is taken, whatever by. */
export const REFUSING_CALLS: Calls = Object.fromEntries(
  ['create exclusively', 'mkdir', 'mkfifo', 'symlink', 'link'].map((name) => [name, MAKING_CALLS[name]!]),
);

export const EVERY_CALL: Calls = {
  ...FOLLOWING_CALLS,
  ...LOOKING_CALLS,
  ...REMOVING_CALLS,
  ...MAKING_CALLS,
};

/** All of `calls` on `name`. */
export const callAll = (w: Workbench, calls: Calls, name: Name): void => {
  for (const call of Object.values(calls)) call(w, name);
};
