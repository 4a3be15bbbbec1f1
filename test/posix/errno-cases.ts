/** Cases about the errors that a name, a kind of node or a combination of them must give. */
import { callAll, EVERY_CALL, FOLLOWING_CALLS, REFUSING_CALLS } from './every-call.js';
import { errnoName, libc } from './libc.js';
import { NODE_KINDS } from './node-kinds.js';
import {
  type Cases,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
} from './workbench.js';

const O_NONBLOCK = 0o4000;
const EXCHANGE = 2;
const WHITEOUT = 4;
/** limits.h: NAME_MAX bytes a component, PATH_MAX bytes a path with its end. */
const LONG_NAME = 'n'.repeat(256);
/** Leads to a file system of its own, from whatever folder. */
const ELSEWHERE = `${'../'.repeat(20)}proc/self/fd`;

const kindCases: Cases = Object.fromEntries(
  Object.entries(NODE_KINDS).flatMap(([kind, make]) => [
    [
      `every call on a ${kind}`,
      (w) => {
        w.make('source', 'source');
        for (const [index, call] of Object.values(EVERY_CALL).entries()) {
          const name = `on-${index}`;
          make(w, name);
          // Opening a FIFO waits for its other end, unless told not to.
          if (kind === 'fifo' && (call === EVERY_CALL['open for writing'] || call === EVERY_CALL['open']))
            w.open(name, O_RDWR | O_NONBLOCK);
          else if (kind === 'fifo' && call === EVERY_CALL['create']) w.open(name, O_RDWR | O_CREAT);
          else call(w, name);
          w.stat(name);
          if (call === EVERY_CALL['rename to']) w.make('source', 'again');
        }
      },
    ],
    [
      `names taken by a ${kind}`,
      (w) => {
        w.make('source');
        make(w, 'taken');
        w.expect('EEXIST', () => callAll(w, REFUSING_CALLS, 'taken'));
        w.stat('taken');
      },
    ],
    [
      `a ${kind} renamed onto each kind`,
      (w) => {
        for (const [index, makeOther] of Object.values(NODE_KINDS).entries()) {
          w.mkdir(`${index}`);
          make(w, `${index}/from`);
          makeOther(w, `${index}/to`);
          w.rename(`${index}/from`, `${index}/to`);
          w.tree(`${index}`);
        }
      },
    ],
    [
      `a ${kind} exchanged with each kind`,
      (w) => {
        for (const [index, makeOther] of Object.values(NODE_KINDS).entries()) {
          w.mkdir(`${index}`);
          make(w, `${index}/from`);
          makeOther(w, `${index}/to`);
          w.expect(0, () => w.rename2(`${index}/from`, `${index}/to`, EXCHANGE));
          w.tree(`${index}`);
        }
      },
    ],
    [
      `a ${kind} through its life`,
      (w) => {
        make(w, 'node');
        w.mkdir('sub');
        w.expect(0, () => w.rename('node', 'sub/moved'));
        w.lchown('sub/moved', 77, 78);
        w.utimens('sub/moved', { seconds: 5, nanoseconds: 0 }, { seconds: 6, nanoseconds: 0 }, 0x100);
        w.times('sub/moved');
        if (!kind.includes('link')) w.chmod('sub/moved', 0o741);
        w.tree();
        if (kind === 'full folder') w.unlink('sub/moved/inside');
        w.expect(0, () => (kind.includes('folder') ? w.rmdir('sub/moved') : w.unlink('sub/moved')));
        w.tree();
      },
    ],
  ]),
);

export const errnoCases: Cases = {
  ...kindCases,
  'a component of 256 bytes': (w) => {
    w.make('source');
    w.expect('ENAMETOOLONG', () => callAll(w, EVERY_CALL, LONG_NAME));
    w.expect('ENAMETOOLONG', () => callAll(w, EVERY_CALL, `${LONG_NAME}/below`));
    w.expect('ENAMETOOLONG', () => w.rename('source', LONG_NAME));
    w.expect('ENAMETOOLONG', () => w.link('source', LONG_NAME));
  },
  'a path of 4,096 bytes': (w) => {
    w.make('source');
    const length = 4096 - Buffer.byteLength(w.path(''));
    const from = w.transcript.length;
    w.expect('ENAMETOOLONG', () => callAll(w, EVERY_CALL, './'.repeat(length).slice(-length)));
    // One byte less, and it is the folder itself.
    w.expect(0, () => w.access('./'.repeat(length).slice(-length + 1), 0));
    // The two folders' own paths differ in length, and so do these names: their answers are what counts.
    for (let i = from; i < w.transcript.length; i++) w.transcript[i] = w.transcript[i]!.replace(/^.*: /, '');
  },
  'a folder that is not there': (w) => {
    w.make('source');
    w.expect('ENOENT', () => callAll(w, EVERY_CALL, 'none/below'));
    w.expect('ENOENT', () => callAll(w, EVERY_CALL, 'none/further/below'));
    w.symlink('nowhere', 'dangling');
    w.expect('ENOENT', () => callAll(w, EVERY_CALL, 'dangling/below'));
    w.expect('ENOENT', () => callAll(w, FOLLOWING_CALLS, 'dangling'));
  },
  'a file in the place of a folder': (w) => {
    w.make('source');
    for (const kind of ['file', 'fifo', 'socket', 'device', 'link to a file']) NODE_KINDS[kind]!(w, kind);
    for (const kind of ['file', 'fifo', 'socket', 'device', 'link to a file'])
      w.expect('ENOTDIR', () => callAll(w, EVERY_CALL, `${kind}/below`));
  },
  'symbolic links that lead to one another': (w) => {
    w.make('source');
    w.symlink('b', 'a');
    w.symlink('a', 'b');
    w.expect('ELOOP', () => callAll(w, EVERY_CALL, 'a/below'));
    w.expect('ELOOP', () => callAll(w, FOLLOWING_CALLS, 'b'));
    w.expect('ELOOP', () => w.open('a', O_RDWR | O_CREAT));
  },
  'forty symbolic links, and one more': (w) => {
    // path_resolution(7): the kernel follows at most 40.
    w.make('link-0', 'end');
    for (let i = 1; i <= 41; i++) w.symlink(`link-${i - 1}`, `link-${i}`);
    w.expect(0, () => w.open('link-40', O_RDONLY));
    w.expect('ELOOP', () => w.open('link-41', O_RDONLY));
    w.expect('ELOOP', () => callAll(w, FOLLOWING_CALLS, 'link-41'));
  },
  'a slash after the name': (w) => {
    w.make('source');
    for (const [kind, make] of Object.entries(NODE_KINDS))
      for (const [call, run] of Object.entries(EVERY_CALL)) {
        const name = `${kind}-${call}`.replaceAll(' ', '-');
        make(w, name);
        if (kind !== 'fifo') run(w, `${name}/`);
        if (call === 'rename to') w.make('source', '', 0o600);
      }
    w.expect('EISDIR', () => w.open('new/', O_RDWR | O_CREAT));
    w.expect(0, () => w.mkdir('folder/'));
    w.expect('ENOENT', () => w.symlink('x', 'new/'));
    w.expect('ENOTDIR', () => w.rename('source', 'new/'));
    w.expect(0, () => w.rename('folder/', 'renamed/'));
    w.tree();
  },
  'dot and dot-dot': (w) => {
    w.mkdir('dir');
    w.mkdir('dir/sub');
    w.expect('EINVAL', () => w.rmdir('dir/.'));
    w.expect('ENOTEMPTY', () => w.rmdir('dir/sub/..'));
    w.expect('EISDIR', () => w.unlink('dir/.'));
    w.expect('EISDIR', () => w.unlink('dir/sub/..'));
    w.expect('EEXIST', () => w.mkdir('dir/.'));
    w.expect('EEXIST', () => w.mkdir('dir/sub/..'));
    w.expect('EEXIST', () => w.symlink('x', 'dir/.'));
    w.expect('EBUSY', () => w.rename('dir/.', 'other'));
    w.expect('EBUSY', () => w.rename('dir/sub/..', 'other'));
    w.expect('EBUSY', () => w.rename('dir/sub', 'dir/..'));
    w.tree();
  },
  'a folder below itself': (w) => {
    w.mkdir('a');
    w.mkdir('a/b');
    w.mkdir('a/b/c');
    w.expect('EINVAL', () => w.rename('a', 'a/b/new'));
    w.expect('EINVAL', () => w.rename('a', 'a/b'));
    w.expect('EINVAL', () => w.rename('a/b', 'a/b/c/d'));
    w.expect('ENOTEMPTY', () => w.rename('a/b/c', 'a'));
    w.expect('EINVAL', () => w.rename2('a', 'a/b/c', EXCHANGE));
    w.tree();
  },
  'to another file system': (w) => {
    w.make('source');
    w.mkdir('dir');
    w.expect('EXDEV', () => {
      w.rename('source', ELSEWHERE);
      w.rename('dir', ELSEWHERE);
      w.link(`${ELSEWHERE}/../stat`, 'new');
      w.rename(ELSEWHERE, 'new');
      w.rename2('source', ELSEWHERE, EXCHANGE);
    });
  },
  'hard links to each kind': (w) => {
    for (const [kind, make] of Object.entries(NODE_KINDS)) {
      make(w, kind);
      if (kind.includes('folder')) continue;
      w.expect(0, () => w.link(kind, `${kind}.hard`));
      w.lchown(kind, 77, 78);
      w.stat(`${kind}.hard`);
      w.expect(0, () => w.unlink(kind));
    }
    w.tree();
  },
  'hard links that must not be': (w) => {
    w.mkdir('dir');
    w.expect('EPERM', () => w.link('dir', 'other'));
    w.expect('EPERM', () => w.link('.', 'other'));
    w.make('file');
    w.expect('EEXIST', () => w.link('file', 'file'));
    w.expect('ENOENT', () => w.link('none', 'file'));
    w.expect('EINVAL', () => w.link('file', 'other', 0x8000));
  },
  'flags of rename that make no sense': (w) => {
    w.make('a');
    w.make('b');
    w.expect('EINVAL', () => {
      w.rename2('a', 'b', EXCHANGE | 1);
      w.rename2('a', 'b', EXCHANGE | WHITEOUT);
      w.rename2('a', 'b', 0x40);
    });
  },
  'kinds that mknod does not make': (w) => {
    w.expect('EPERM', () => w.mknod('folder', 0o040_755));
    w.expect('EINVAL', () => w.mknod('link', 0o120_777));
    w.expect('EINVAL', () => w.mknod('odd', 0o110_600));
    w.list();
  },
  'flags of open that contradict each other': (w) => {
    w.make('file', 'contents');
    w.mkdir('dir');
    w.symlink('file', 'link');
    w.symlink('none', 'dangling');
    w.expect('EINVAL', () => w.open('new', O_RDWR | O_CREAT | O_DIRECTORY));
    w.expect('ELOOP', () => w.open('link', O_RDWR | O_NOFOLLOW));
    w.expect('ELOOP', () => w.open('link', O_RDWR | O_CREAT | O_NOFOLLOW));
    w.expect('EEXIST', () => w.open('link', O_RDWR | O_CREAT | O_EXCL));
    w.expect('EEXIST', () => w.open('dangling', O_RDWR | O_CREAT | O_EXCL));
    w.expect('EISDIR', () => w.open('dir', O_RDWR));
    w.expect('EISDIR', () => w.open('dir', O_RDONLY | O_CREAT));
    w.expect('EISDIR', () => w.open('dir', O_RDONLY | O_TRUNC));
    w.expect('EISDIR', () => w.truncate('dir', 0));
    w.expect('ENOTDIR', () => w.open('file', O_RDONLY | O_DIRECTORY));
    w.expect('ENOTDIR', () => w.open('link', O_PATH | O_NOFOLLOW | O_DIRECTORY));
    w.expect(0, () => w.open('link', O_PATH | O_NOFOLLOW));
    w.open('file', O_RDONLY | O_TRUNC);
    w.stat('file');
    w.list();
  },
  'ends of a FIFO': (w) => {
    w.mknod('fifo', 0o010_644);
    w.expect('ENXIO', () => w.open('fifo', O_WRONLY | O_NONBLOCK));
    const reader = w.open('fifo', O_RDONLY | O_NONBLOCK);
    const writer = w.open('fifo', O_WRONLY | O_NONBLOCK);
    w.write(writer, 'through');
    w.expect('ESPIPE', () => w.lseek(writer, 0, 0));
    w.expect('ESPIPE', () => w.pwrite(writer, 'x', 0));
    w.expect('ESPIPE', () => w.pread(reader, 1, 0));
    w.expect('ESPIPE', () => w.fallocate(writer, 0, 0, 1));
    w.expect('EINVAL', () => w.ftruncate(writer, 0));
    w.expect('EINVAL', () => w.truncate('fifo', 0));
    w.chmod('fifo', 0o600);
    w.rename('fifo', 'moved');
    w.write(writer, 'more');
    w.stat('moved');
    w.mknod('socket', 0o140_644);
    w.expect('ENXIO', () => {
      w.open('socket', O_RDONLY);
      w.open('socket', O_RDWR | O_CREAT);
    });
  },
  'a device works': (w) => {
    w.mknod('zero', 0o020_666, 0x0105);
    const fd = w.open('zero', O_RDWR);
    w.pread(fd, 5, 0);
    w.pwrite(fd, 'gone', 0);
    w.mknod('nobody-has-it', 0o020_666, 0xfff0_00ff);
    w.open('nobody-has-it', O_RDWR);
    w.stat('zero');
  },
  'trees deeper than a path is long': (w) => {
    // 20 folders of 250 bytes: nothing but relative names reaches the end.
    const name = 'd'.repeat(250);
    const down = `i=0; while [ $i -lt 20 ]; do mkdir ${name} && cd -P ${name} || exit; i=$((i+1)); done 2>/dev/null`;
    w.run('sh', '-c', `${down}; echo deep >end && cat end`);
    w.run('sh', '-c', `find . -name end | wc -c; du -a . | wc -l; find . -type f -execdir cat {} +`);
    w.run('rm', '-r', name);
    w.list();
  },
  'new names in a folder that was removed': (w) => {
    w.make('source');
    w.mkdir('gone');
    const fd = w.open('gone', O_RDONLY | O_DIRECTORY);
    w.rmdir('gone');
    const below = `/proc/self/fd/${fd}/new`;
    const made = [
      libc.mkdir(Buffer.from(`${below}\0`), 0o755),
      libc.mknod(Buffer.from(`${below}\0`), 0o010_600, 0),
      libc.symlink(Buffer.from('x\0'), Buffer.from(`${below}\0`)),
      libc.openat(-100, Buffer.from(`${below}\0`), O_RDWR | O_CREAT, 0o600),
    ];
    w.expect('ENOENT', () => {
      for (const result of made) w.note('made', errnoName(-result));
    });
  },
};
