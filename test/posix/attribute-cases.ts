/** Cases about attributes: modes, owners, times, extended attributes, statfs. */
import {
  AT_SYMLINK_NOFOLLOW,
  type Cases,
  NOBODY,
  O_CREAT,
  O_RDWR,
  UTIME_NOW,
  UTIME_OMIT,
} from './workbench.js';

const at = (seconds: number, nanoseconds = 0) => ({ seconds, nanoseconds });
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;

export const attributeCases: Cases = {
  'all bits of a mode': (w) => {
    w.make('file');
    w.mkdir('dir');
    for (const mode of [0o7777, 0o4711, 0o2070, 0o1000, 0o000, 0o644]) {
      w.chmod('file', mode);
      w.stat('file');
      w.chmod('dir', mode);
      w.stat('dir');
    }
    const fd = w.open('file', O_RDWR);
    w.fchmod(fd, 0o606);
    w.stat('file');
  },
  owners: (w) => {
    w.make('file');
    w.chown('file', 12, 34);
    w.stat('file');
    w.chown('file', -1, 56);
    w.stat('file');
    w.chown('file', 78, -1);
    w.stat('file');
    w.chown('file', -1, -1);
    w.stat('file');
    w.chown('file', 4_000_000_000, 4_100_000_000);
    w.stat('file');
  },
  'a new owner loses the set-id bits': (w) => {
    w.make('file');
    w.chmod('file', 0o6755);
    w.chown('file', 12, 34);
    w.stat('file');
    w.chmod('file', 0o2745);
    w.chown('file', 0, 0);
    w.stat('file');
    w.mkdir('dir');
    w.chmod('dir', 0o2755);
    w.chown('dir', 12, 34);
    w.stat('dir');
  },
  'a write by another user clears the set-id bits': (w) => {
    for (const name of ['written', 'truncated', 'shrunk']) {
      w.make(name, 'x'.repeat(100));
      w.chmod(name, 0o6777);
      w.as(NOBODY, () => {
        const fd = w.open(name, O_RDWR);
        if (name === 'written') w.pwrite(fd, 'y', 0);
        else if (name === 'truncated') w.truncate(name, 5);
        else w.ftruncate(fd, 5);
        w.close(fd);
      });
      w.stat(name);
    }
    w.make('by-root', 'x');
    w.chmod('by-root', 0o6777);
    w.pwrite(w.open('by-root', O_RDWR), 'y', 0);
    w.stat('by-root');
  },
  'what another user may change': (w) => {
    w.make('roots', 'x', 0o644);
    w.make('theirs', 'x', 0o600);
    w.chown('theirs', NOBODY, NOBODY);
    w.make('shared', 'x');
    w.chmod('shared', 0o666);
    w.as(NOBODY, () => {
      w.chmod('roots', 0o666);
      w.chown('roots', NOBODY, NOBODY);
      w.utimens('roots', at(1), at(2));
      w.utimens('roots', at(0, UTIME_NOW), at(0, UTIME_NOW));
      w.utimens('shared', at(1), at(2));
      w.utimens('shared', at(0, UTIME_NOW), at(0, UTIME_NOW));
      w.truncate('roots', 0);
      w.open('roots', O_RDWR);
      w.chmod('theirs', 0o4755);
      w.chown('theirs', -1, NOBODY);
      w.chown('theirs', 0, -1);
      w.utimens('theirs', at(1, 5), at(2, 6));
      w.setxattr('theirs', 'user.mine', 'x');
      w.setxattr('roots', 'user.mine', 'x');
      w.getxattr('theirs', 'trusted.x');
      w.times('theirs');
      w.contents('theirs');
    });
    w.stat('roots');
    w.stat('theirs');
  },
  'times to the nanosecond': (w) => {
    w.make('file');
    w.utimens('file', at(1_000_000_000, 123_456_789), at(1_500_000_000, 987_654_321));
    w.times('file');
    w.utimens('file', at(0, UTIME_OMIT), at(1_600_000_000, 1));
    w.times('file');
    w.utimens('file', at(1_700_000_000, 999_999_999), at(0, UTIME_OMIT));
    w.times('file');
    const fd = w.open('file', O_RDWR);
    w.futimens(fd, at(5, 6), at(7, 8));
    w.times('file');
    w.utimens('file', at(0, 1_000_000_000), at(0));
    w.mkdir('dir');
    w.utimens('dir', at(11, 12), at(13, 14));
    w.times('dir');
    w.symlink('file', 'link');
    w.utimens('link', at(21, 22), at(23, 24), AT_SYMLINK_NOFOLLOW);
    w.times('link');
    w.times('file');
    w.utimens('link', at(31, 32), at(33, 34));
    w.times('file');
  },
  'times before 1970 and after 2038': (w) => {
    w.make('file');
    for (const seconds of [-1, -1_000_000_000, 2 ** 31, 2 ** 32 + 5, 15_000_000_000]) {
      w.utimens('file', at(seconds, 7), at(seconds, 8));
      w.times('file');
    }
  },
  'which times a change moves': (w) => {
    w.make('file', 'x');
    w.mkdir('dir');
    w.utimens('file', at(1), at(1));
    w.utimens('dir', at(1), at(1));
    const fd = w.open('file', O_RDWR);
    w.moves('file', () => w.pwrite(fd, 'y', 0));
    w.moves('file', () => w.chmod('file', 0o600));
    w.moves('file', () => w.link('file', 'other'));
    w.moves('file', () => w.ftruncate(fd, 0));
    w.moves('file', () => w.setxattr('file', 'user.x', '1'));
    w.moves('dir', () => w.make('dir/new'));
    w.moves('dir', () => w.unlink('dir/new'));
    w.moves('file', () => {
      w.rename('file', 'file2');
      w.rename('file2', 'file');
    });
  },
  'extended attributes': (w) => {
    w.make('file');
    w.getxattr('file', 'user.none');
    w.removexattr('file', 'user.none');
    w.setxattr('file', 'user.a', 'value');
    w.getxattr('file', 'user.a');
    w.getxattr('file', 'user.a', 0);
    w.getxattr('file', 'user.a', 3);
    w.setxattr('file', 'user.a', 'again', XATTR_CREATE);
    w.setxattr('file', 'user.b', 'value', XATTR_REPLACE);
    w.setxattr('file', 'user.a', 'replaced', XATTR_REPLACE);
    w.setxattr('file', 'user.empty', '');
    w.getxattr('file', 'user.empty');
    w.setxattr('file', 'user.binary', Buffer.from([0, 255, 1, 0, 128, 10]));
    w.getxattr('file', 'user.binary');
    w.setxattr('file', 'user.long', Buffer.alloc(2000, 3));
    w.getxattr('file', 'user.long');
    w.listxattr('file');
    w.listxattr('file', 0);
    w.listxattr('file', 5);
    w.removexattr('file', 'user.a');
    w.listxattr('file');
    w.setxattr('file', `user.${'n'.repeat(250)}`, 'x');
    w.setxattr('file', `user.${'n'.repeat(251)}`, 'x');
    w.setxattr('file', 'user.huge', Buffer.alloc(65_537));
    w.setxattr('file', 'noprefix', 'x');
    w.setxattr('file', 'user.', 'x');
  },
  'extended attributes of other things': (w) => {
    w.mkdir('dir');
    w.setxattr('dir', 'user.d', 'on a folder');
    w.getxattr('dir', 'user.d');
    w.listxattr('dir');
    w.symlink('dir', 'link');
    w.setxattr('link', 'user.l', 'x');
    w.setxattr('link', 'trusted.l', 'x');
    w.getxattr('link', 'trusted.l');
    w.mknod('fifo', 0o010_600);
    w.setxattr('fifo', 'user.f', 'x');
    w.make('file');
    w.setxattr('file', 'trusted.t', 'root only');
    w.setxattr('file', 'security.s', 'x');
    w.listxattr('file');
    w.as(NOBODY, () => w.listxattr('file'));
  },
  'many extended attributes': (w) => {
    w.make('file');
    for (let i = 0; i < 30; i++) w.setxattr('file', `user.number-${i}`, `value ${i}`);
    w.listxattr('file');
    w.run('getfattr', '-d', 'file');
  },
  'access lists': (w) => {
    w.make('file');
    w.run('sh', '-c', 'setfacl -m u:65534:rw file 2>/dev/null; echo $?');
    w.getxattr('file', 'system.posix_acl_access');
  },
  'file system figures': (w) => {
    w.statfs();
    w.run('stat', '-f', '-c', '%s %S %b %c %l', '.');
  },
  'access checks': (w) => {
    w.make('file', '', 0o640);
    w.make('script', '', 0o755);
    for (const mode of [0, 1, 2, 4, 7]) {
      w.access('file', mode);
      w.access('script', mode);
      w.as(NOBODY, () => w.access('script', mode));
      w.as(NOBODY, () => w.access('file', mode));
    }
  },
  'attributes of a file while it is open': (w) => {
    const fd = w.open('file', O_RDWR | O_CREAT, 0o400);
    w.pwrite(fd, 'x', 0);
    w.fchmod(fd, 0);
    w.pwrite(fd, 'y', 1);
    w.pread(fd, 2, 0);
    w.stat('file');
    w.as(NOBODY, () => w.pwrite(fd, 'z', 2));
    w.contents('file');
  },
};
