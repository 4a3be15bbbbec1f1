/** One of each kind of thing that a name can stand for. */
import type { Workbench } from './workbench.js';

const S_IFIFO = 0o010_000;
const S_IFCHR = 0o020_000;
const S_IFSOCK = 0o140_000;

/** Symbolic links point beside themselves: to `NAME.target`, to `NAME.none`, to themselves. */
export const NODE_KINDS: Readonly<Record<string, (w: Workbench, name: string) => void>> = {
  file: (w, name) => w.make(name, 'contents'),
  'empty folder': (w, name) => w.mkdir(name),
  'full folder': (w, name) => {
    w.mkdir(name);
    w.make(`${name}/inside`);
  },
  'link to a file': (w, name) => {
    w.make(`${name}.target`, 'target');
    w.symlink(`${name.slice(name.lastIndexOf('/') + 1)}.target`, name);
  },
  'dangling link': (w, name) => w.symlink(`${name.slice(name.lastIndexOf('/') + 1)}.none`, name),
  'link to itself': (w, name) => w.symlink(name.slice(name.lastIndexOf('/') + 1), name),
  fifo: (w, name) => w.mknod(name, S_IFIFO | 0o644),
  socket: (w, name) => w.mknod(name, S_IFSOCK | 0o644),
  device: (w, name) => w.mknod(name, S_IFCHR | 0o644, 0x0103),
};
