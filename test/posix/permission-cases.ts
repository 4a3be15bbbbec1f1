/** Cases about who may do what: access bits, sticky folders, owners (path_resolution(7), inode(7)). */
import { callAll, EVERY_CALL, LOOKING_CALLS, MAKING_CALLS, REMOVING_CALLS } from './every-call.js';
import { asUser } from './libc.js';
import { type Cases, O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, type Workbench } from './workbench.js';

const OWNER = 1001;
const GROUP = 1002;
const STRANGER = 1003;
/** Ids that share nothing with root's groups, so that no other right helps. */
const CALLERS = [
  { who: 'the owner', uid: OWNER, gid: STRANGER, shift: 6 },
  { who: 'a member of the group', uid: STRANGER, gid: GROUP, shift: 3 },
  { who: 'anybody else', uid: STRANGER, gid: STRANGER, shift: 0 },
] as const;
const [R, W, X] = [4, 2, 1];
const ALL_BITS = [0, 1, 2, 3, 4, 5, 6, 7];
const at = (seconds: number) => ({ seconds, nanoseconds: 0 });

const owned = (w: Workbench, name: string, uid: number, gid: number, mode: number): void => {
  w.lchown(name, uid, gid);
  w.chmod(name, mode);
};

const bitCases: Cases = Object.fromEntries(
  CALLERS.flatMap(({ who, uid, gid, shift }) => [
    [
      `what the bits of a file allow ${who}`,
      (w) => {
        for (const bits of ALL_BITS) {
          const name = `file-${bits}`;
          w.make(name, 'contents');
          // All other bits are set: only those of the caller's class may count.
          owned(w, name, OWNER, GROUP, 0o777 & ~((7 ^ bits) << shift));
          const allowed = (needed: number): 0 | 'EACCES' => ((bits & needed) === needed ? 0 : 'EACCES');
          asUser(uid, gid, () => {
            w.expect(allowed(R), () => w.open(name, O_RDONLY));
            w.expect(allowed(W), () => w.open(name, O_WRONLY));
            w.expect(allowed(R | W), () => w.open(name, O_RDWR));
            w.expect(allowed(W), () => w.truncate(name, 5));
            w.setxattr(name, 'user.x', 'x');
            for (const needed of ALL_BITS) w.access(name, needed);
          });
        }
      },
    ],
    [
      `what the bits of a folder allow ${who}`,
      (w) => {
        w.mkdir('free');
        w.chmod('free', 0o777);
        for (const bits of ALL_BITS) {
          const name = `dir-${bits}`;
          w.mkdir(name);
          w.make(`${name}/file`, 'x', 0o666);
          w.make(`${name}/doomed`);
          w.make(`${name}/moving`);
          w.mkdir(`${name}/sub`);
          owned(w, name, OWNER, GROUP, 0o777 & ~((7 ^ bits) << shift));
          const allowed = (needed: number): 0 | 'EACCES' => ((bits & needed) === needed ? 0 : 'EACCES');
          asUser(uid, gid, () => {
            w.expect(allowed(R), () => w.open(name, O_RDONLY));
            w.expect(allowed(X), () => w.open(`${name}/file`, O_RDONLY));
            w.expect(allowed(X), () => w.access(`${name}/file`, 0));
            w.expect(allowed(W | X), () => w.unlink(`${name}/doomed`));
            w.expect(allowed(W | X), () => w.rmdir(`${name}/sub`));
            w.expect(allowed(W | X), () => w.mkdir(`${name}/new`));
            w.expect(allowed(W | X), () => w.symlink('x', `${name}/link`));
            w.expect(allowed(W | X), () => w.rename(`${name}/file`, `${name}/renamed`));
            w.expect(allowed(W | X), () => w.rename(`${name}/moving`, `free/out-${bits}`));
          });
          w.list(name);
        }
      },
    ],
  ]),
);

/** A name in a sticky folder belongs to the owner of the thing, the owner of the folder, and root (inode(7)). */
const stickyCase = (folderOwner: number, thingOwner: number): ((w: Workbench) => void) => {
  return (w) => {
    w.mkdir('sticky');
    w.mkdir('free');
    w.chmod('free', 0o777);
    w.make('sticky/file');
    w.make('sticky/moving');
    w.make('sticky/target');
    w.mkdir('sticky/dir');
    for (const name of ['file', 'moving', 'target', 'dir'])
      owned(w, `sticky/${name}`, thingOwner, GROUP, 0o777);
    owned(w, 'sticky', folderOwner, GROUP, 0o1777);
    const may = folderOwner === OWNER || thingOwner === OWNER;
    asUser(OWNER, STRANGER, () => {
      w.make('sticky/own');
      w.expect(may ? 0 : 'EPERM', () => {
        w.rename('sticky/own', 'sticky/target');
        w.rename('sticky/moving', 'sticky/moved');
        w.rename(may ? 'sticky/moved' : 'sticky/moving', 'free/moved');
        w.rmdir('sticky/dir');
        w.unlink('sticky/file');
      });
      w.make('sticky/own-file');
      w.expect(0, () => w.rename('sticky/own-file', 'sticky/own-renamed'));
      w.expect(0, () => w.unlink('sticky/own-renamed'));
    });
    w.tree();
  };
};

const groupGivenByOwner = (w: Workbench, mode: number): void => {
  const name = `file-${mode}`;
  w.make(name);
  owned(w, name, OWNER, STRANGER, mode);
  asUser(OWNER, GROUP, () => w.chown(name, -1, GROUP));
  w.stat(name);
};

/** Every way to change contents, none of which may leave a program with another's rights. */
const WRITES: Readonly<Record<string, (w: Workbench, name: string, fd: number) => void>> = {
  pwrite: (w, _, fd) => w.pwrite(fd, 'y', 0),
  'pwrite of nothing': (w, _, fd) => w.pwrite(fd, '', 0),
  append: (w, _, fd) => w.pwrite(fd, 'y', 100),
  truncate: (w, name) => w.truncate(name, 5),
  'truncate to the same size': (w, name) => w.truncate(name, 8),
  ftruncate: (w, _, fd) => w.ftruncate(fd, 20),
  'open and truncate': (w, name) => void w.open(name, O_WRONLY | O_TRUNC),
  chmod: (w, name) => w.chmod(name, 0o6777),
};

const writtenByStranger = (w: Workbench, mode: number): void => {
  for (const [index, [what, write]] of Object.entries(WRITES).entries()) {
    const name = `written-${mode}-${index}`;
    w.make(name, 'contents');
    w.chmod(name, mode);
    asUser(STRANGER, STRANGER, () => write(w, name, w.open(name, O_RDWR)));
    w.note('after', what);
    w.stat(name);
  }
};

export const permissionCases: Cases = {
  ...bitCases,
  'a folder that may not be searched': (w) => {
    w.make('source');
    w.mkdir('closed', 0o700);
    w.make('closed/file');
    w.mkdir('closed/sub');
    asUser(STRANGER, STRANGER, () => {
      w.expect('EACCES', () => callAll(w, EVERY_CALL, 'closed/file'));
      w.expect('EACCES', () => callAll(w, EVERY_CALL, 'closed/none'));
      w.expect('EACCES', () => callAll(w, EVERY_CALL, 'closed/sub/deeper'));
    });
    w.tree();
  },
  'a folder that may not be written': (w) => {
    w.chmod('.', 0o777);
    w.make('source');
    w.chmod('source', 0o666);
    w.lchown('source', STRANGER, STRANGER);
    w.mkdir('closed', 0o755);
    w.make('closed/file', '', 0o666);
    w.mkdir('closed/sub');
    asUser(STRANGER, STRANGER, () => {
      w.expect('EACCES', () => callAll(w, MAKING_CALLS, 'closed/new'));
      w.expect('EACCES', () => w.unlink('closed/file'));
      w.expect('EACCES', () => w.rmdir('closed/sub'));
      w.expect('EACCES', () => w.rename('closed/file', 'out'));
      // What is there can be looked at all the same.
      callAll(w, LOOKING_CALLS, 'closed/file');
      callAll(w, REMOVING_CALLS, 'closed/none');
    });
    w.tree();
  },
  'sticky: neither folder nor thing is theirs': stickyCase(0, STRANGER),
  'sticky: the folder is theirs': stickyCase(OWNER, STRANGER),
  'sticky: the thing is theirs': stickyCase(0, OWNER),
  'sticky: a folder moved by who owns it': (w) => {
    w.mkdir('sticky');
    w.mkdir('sticky/theirs');
    w.mkdir('to');
    owned(w, 'sticky', 0, 0, 0o1777);
    owned(w, 'to', 0, 0, 0o1777);
    owned(w, 'sticky/theirs', OWNER, GROUP, 0o755);
    asUser(STRANGER, STRANGER, () => w.expect('EPERM', () => w.rename('sticky/theirs', 'to/x')));
    asUser(OWNER, GROUP, () => w.expect(0, () => w.rename('sticky/theirs', 'to/x')));
    w.tree();
  },
  'attributes are the owner’s': (w) => {
    w.make('file', 'x');
    owned(w, 'file', OWNER, GROUP, 0o666);
    w.mkdir('dir');
    owned(w, 'dir', OWNER, GROUP, 0o777);
    for (const name of ['file', 'dir'])
      asUser(STRANGER, GROUP, () => {
        w.expect('EPERM', () => {
          w.chmod(name, 0o600);
          w.chown(name, STRANGER, -1);
          w.chown(name, -1, STRANGER);
          w.chown(name, OWNER, GROUP);
          w.utimens(name, at(1), at(2));
        });
      });
    asUser(OWNER, GROUP, () => {
      w.expect(0, () => w.chmod('file', 0o640));
      w.expect('EPERM', () => w.chown('file', STRANGER, -1));
      w.expect('EPERM', () => w.chown('file', -1, STRANGER));
      w.expect(0, () => w.chown('file', OWNER, GROUP));
      w.expect(0, () => w.chown('file', -1, -1));
      w.expect(0, () => w.utimens('file', at(1), at(2)));
    });
    w.tree();
    w.times('file');
  },
  'set-group-id without being in the group': (w) => {
    w.make('file');
    owned(w, 'file', OWNER, GROUP, 0o755);
    // chmod(2): the bit is dropped, and that is no error.
    asUser(OWNER, STRANGER, () => w.expect(0, () => w.chmod('file', 0o6755)));
    w.stat('file');
    asUser(OWNER, GROUP, () => w.expect(0, () => w.chmod('file', 0o6755)));
    w.stat('file');
  },
  'set-id bits and a new group by the owner': (w) => {
    for (const mode of [0o6755, 0o2755, 0o4755, 0o4000, 0o6777]) groupGivenByOwner(w, mode);
  },
  // Without the group's execute bit it stands for mandatory locking, which Linux no longer has.
  'set-group-id without the group’s execute bit': (w) => {
    for (const mode of [0o2745, 0o6000]) groupGivenByOwner(w, mode);
    for (const mode of [0o2767, 0o2666]) writtenByStranger(w, mode);
  },
  'a write clears set-id bits, however it is made': (w) => {
    for (const mode of [0o6777, 0o2777, 0o4666]) writtenByStranger(w, mode);
  },
  'a descriptor keeps the rights it was opened with': (w) => {
    w.make('file', 'contents', 0o666);
    w.chmod('file', 0o666);
    const fd = asUser(STRANGER, STRANGER, () => w.open('file', O_RDWR));
    w.chmod('file', 0);
    asUser(STRANGER, STRANGER, () => {
      w.expect('EACCES', () => w.open('file', O_RDONLY));
      w.pwrite(fd, 'STILL', 0);
      w.pread(fd, 8, 0);
      w.expect(0, () => w.ftruncate(fd, 3));
      w.expect('EPERM', () => w.fchmod(fd, 0o666));
    });
    w.contents('file');
  },
  'a file made without rights for its maker': (w) => {
    w.chmod('.', 0o777);
    asUser(STRANGER, STRANGER, () => {
      const fd = w.open('own', O_RDWR | O_CREAT, 0);
      w.pwrite(fd, 'mine', 0);
      w.expect('EACCES', () => w.open('own', O_RDONLY));
      w.expect(0, () => w.chmod('own', 0o600));
      w.contents('own');
    });
    w.stat('own');
  },
  'execute bits': (w) => {
    w.make('script', '#!/bin/sh\necho ran\n', 0o755);
    w.make('none', '#!/bin/sh\necho ran\n', 0o644);
    w.make('only-x', '#!/bin/sh\necho ran\n', 0o711);
    for (const name of ['script', 'none', 'only-x']) {
      w.run(
        'setpriv',
        '--reuid=1003',
        '--regid=1003',
        '--clear-groups',
        'sh',
        '-c',
        `./${name} 2>/dev/null; echo $?`,
      );
      w.run('sh', '-c', `./${name} 2>/dev/null; echo $?`);
    }
    w.run('sh', '-c', 'cp /usr/bin/id id && chmod 4755 id && chown 1001 id && chmod 4755 id');
    w.run('sh', '-c', './id -u');
  },
};
