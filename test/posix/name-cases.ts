/** Cases about names: creating, finding, renaming, linking and removing. */
import { type Cases, NOBODY, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY } from './workbench.js';

const NOREPLACE = 1;
const EXCHANGE = 2;
const S_IFIFO = 0o010_000;
const S_IFCHR = 0o020_000;
const S_IFBLK = 0o060_000;
const S_IFSOCK = 0o140_000;

export const nameCases: Cases = {
  'a name that is not there': (w) => {
    w.open('none', O_RDONLY);
    w.stat('none');
    w.unlink('none');
    w.rmdir('none');
    w.rename('none', 'other');
    w.link('none', 'other');
    w.readlink('none');
    w.chmod('none', 0o600);
    w.truncate('none', 0);
    w.access('none', 0);
    w.mkdir('none/below');
    w.open('none/below', O_RDWR | O_CREAT);
  },
  'a file where a folder is needed': (w) => {
    w.make('file');
    w.stat('file/below');
    w.open('file/below', O_RDWR | O_CREAT);
    w.mkdir('file/below');
    w.rmdir('file');
    w.open('file', O_RDONLY | O_DIRECTORY);
    w.rename('file', 'file/below');
    w.stat('file/');
    w.list('file');
  },
  'a folder where a file is needed': (w) => {
    w.mkdir('dir');
    w.unlink('dir');
    w.open('dir', O_RDWR);
    w.open('dir', O_WRONLY);
    w.open('dir', O_RDWR | O_CREAT);
    w.truncate('dir', 0);
    w.link('dir', 'other');
    w.readlink('dir');
  },
  'names of the greatest length': (w) => {
    const longest = 'n'.repeat(255);
    w.make(longest, 'long');
    w.contents(longest);
    w.mkdir(`${longest}x`);
    w.make(`${longest}x`);
    w.rename(longest, `${longest}x`);
    w.symlink('x', `${longest}x`);
    w.link(longest, `${longest}x`);
    w.rename(longest, 'é'.repeat(127));
    w.list();
  },
  'names of raw bytes': (w) => {
    const raw = Buffer.from([0x80, 0xff, 0xfe, 0x0a, 0x20, 0xc3]);
    w.make(raw, 'raw');
    w.contents(raw);
    w.list();
    w.rename(raw, Buffer.concat([raw, raw]));
    w.mkdir(raw);
    w.make(Buffer.concat([raw, Buffer.from('/below')]));
    w.list(raw);
    w.symlink(raw, 'link');
    w.readlink('link');
    w.stat('link/below');
    w.list();
  },
  'names with spaces, newlines and signs': (w) => {
    for (const name of [' ', 'a b', 'new\nline', '-rf', '*', '\\', '"', '%s', 'ünï', '...', '.hidden'])
      w.make(name, name);
    w.list();
    w.contents('new\nline');
  },
  'mkdir and its modes': (w) => {
    for (const mode of [0o777, 0o700, 0o1777, 0o2755, 0o000]) {
      w.mkdir(`d${mode}`, mode);
      w.stat(`d${mode}`);
    }
    w.mkdir('d448');
    w.mkdir('.');
    w.mkdir('d448/sub');
    w.stat('d448');
    w.make('d448/file');
    w.stat('d448');
  },
  'rmdir of what is not empty, open, or odd': (w) => {
    w.mkdir('dir');
    w.make('dir/file');
    w.rmdir('dir');
    w.unlink('dir/file');
    const fd = w.open('dir', O_RDONLY | O_DIRECTORY);
    w.rmdir('dir/.');
    w.rmdir('dir');
    w.list('dir');
    w.mkdir('dir');
    w.list('dir');
    w.close(fd);
    w.rmdir('dir');
    w.rmdir('.');
  },
  'a folder removed under an open descriptor': (w) => {
    w.mkdir('gone');
    const fd = w.open('gone', O_RDONLY | O_DIRECTORY);
    w.rmdir('gone');
    w.fchmod(fd, 0o700);
    w.fsync(fd);
    w.close(fd);
  },
  'a folder with 3,000 entries': (w) => {
    w.mkdir('many');
    const lines = w.transcript.length;
    for (let i = 0; i < 3000; i++) w.make(`many/entry-${i}-${'x'.repeat(i % 60)}`);
    w.list('many');
    for (let i = 0; i < 3000; i += 2) w.unlink(`many/entry-${i}-${'x'.repeat(i % 60)}`);
    w.list('many');
    // 3,000 calls would drown a failure; their number is enough.
    w.transcript.splice(lines, w.transcript.length - lines - 2, `calls ${w.transcript.length - lines}`);
  },
  'renaming files': (w) => {
    w.make('a', 'a');
    w.make('b', 'bb');
    w.rename('a', 'c');
    w.contents('c');
    w.stat('a');
    w.rename('c', 'b');
    w.contents('b');
    w.link('b', 'hard');
    w.rename('b', 'hard');
    w.stat('b');
    w.stat('hard');
    w.rename('b', 'b');
    w.mkdir('dir');
    w.rename('b', 'dir/b');
    w.rename('hard', 'dir');
    w.tree();
  },
  'renaming folders': (w) => {
    w.mkdir('a');
    w.make('a/file', 'deep');
    w.mkdir('b');
    w.mkdir('full');
    w.make('full/x');
    w.make('file');
    w.rename('a', 'full');
    w.rename('a', 'file');
    w.rename('file', 'b');
    w.rename('a', 'a/below');
    w.rename('a', 'b');
    w.contents('b/file');
    w.rename('b', 'full/b');
    w.contents('full/b/file');
    w.rename('full/b', '.');
    w.stat('full');
    w.stat('.');
    w.tree();
  },
  'renaming below another folder keeps the link counts': (w) => {
    w.mkdir('from');
    w.mkdir('to');
    w.mkdir('from/dir');
    w.rename('from/dir', 'to/dir');
    w.stat('from');
    w.stat('to');
    w.rename('to/dir', 'from/dir');
    w.stat('from');
    w.stat('to');
  },
  'rename that must not replace': (w) => {
    w.make('a', 'a');
    w.make('b', 'b');
    w.mkdir('dir');
    w.rename2('a', 'b', NOREPLACE);
    w.rename2('a', 'dir', NOREPLACE);
    w.rename2('a', 'c', NOREPLACE);
    w.rename2('none', 'd', NOREPLACE);
    w.rename2('c', 'c', NOREPLACE);
    w.tree();
  },
  'rename that exchanges': (w) => {
    w.make('a', 'a');
    w.make('b', 'bb');
    w.mkdir('dir');
    w.make('dir/in', 'in');
    w.rename2('a', 'b', EXCHANGE);
    w.contents('a');
    w.contents('b');
    w.rename2('a', 'dir', EXCHANGE);
    w.contents('a/in');
    w.contents('dir');
    w.rename2('a', 'none', EXCHANGE);
    w.rename2('b', 'a', EXCHANGE | NOREPLACE);
    w.rename2('a', 'a/in', EXCHANGE);
    w.tree();
  },
  'an open file, and the folder above it, renamed': (w) => {
    w.mkdir('dir');
    w.make('dir/file', 'before');
    const fd = w.open('dir/file');
    w.rename('dir/file', 'dir/other');
    w.pwrite(fd, 'AFTER', 0);
    w.rename('dir', 'moved');
    w.pwrite(fd, '!', 5);
    w.pread(fd, 10, 0);
    w.ftruncate(fd, 3);
    w.fchmod(fd, 0o600);
    w.contents('moved/other');
    w.stat('moved/other');
    w.mkdir('dir');
    w.make('dir/other', 'new');
    w.pread(fd, 10, 0);
    w.contents('dir/other');
  },
  'an open file that is renamed over': (w) => {
    w.make('old', 'old contents');
    w.make('new', 'new');
    const fd = w.open('old');
    w.rename('new', 'old');
    w.pread(fd, 20, 0);
    w.pwrite(fd, 'OLD', 0);
    w.pread(fd, 20, 0);
    w.contents('old');
    w.close(fd);
    w.contents('old');
  },
  'nothing of a file that was renamed over while open is listed': (w) => {
    w.make('old', 'old contents');
    w.make('new', 'new');
    const fd = w.open('old');
    w.rename('new', 'old');
    w.list();
    w.close(fd);
    w.list();
  },
  'hard links': (w) => {
    w.make('a', 'one');
    w.link('a', 'b');
    w.sameInode('a', 'b');
    w.stat('a');
    w.stat('b');
    w.link('a', 'b');
    w.mkdir('dir');
    w.link('b', 'dir/c');
    const fd = w.open('dir/c');
    w.pwrite(fd, 'ONE!', 0);
    w.contents('a');
    w.chmod('b', 0o640);
    w.stat('dir/c');
    w.unlink('a');
    w.stat('b');
    w.contents('b');
    w.unlink('b');
    w.unlink('dir/c');
    w.pread(fd, 10, 0);
    w.list();
  },
  'links of symbolic links': (w) => {
    w.make('file', 'x');
    w.symlink('file', 'sym');
    w.link('sym', 'hard-of-sym');
    w.stat('hard-of-sym');
    w.link('sym', 'hard-of-file', 0x400);
    w.stat('hard-of-file');
  },
  'symbolic links': (w) => {
    w.make('file', 'through');
    w.symlink('file', 'link');
    w.contents('link');
    w.stat('link');
    w.readlink('link');
    w.readlink('link', 2);
    w.readlink('file');
    w.symlink('file', 'link');
    w.symlink('', 'empty');
    w.symlink('loop', 'loop');
    w.open('loop', O_RDONLY);
    w.symlink('nowhere', 'dangling');
    w.open('dangling', O_RDONLY);
    w.open('dangling', O_RDWR | O_CREAT | O_EXCL);
    w.open('dangling', O_RDWR | O_CREAT);
    w.stat('nowhere');
    w.mkdir('dir');
    w.symlink('../file', 'dir/up');
    w.contents('dir/up');
    w.symlink('dir', 'to-dir');
    w.list('to-dir/');
    w.rmdir('to-dir');
    w.unlink('to-dir');
    w.symlink('t'.repeat(4095), 'longest');
    w.readlink('longest');
    w.symlink('t'.repeat(4096), 'too-long');
    w.lchown('link', 5, 6);
    w.stat('link');
    w.stat('file');
    w.tree();
  },
  'special files': (w) => {
    w.mknod('fifo', S_IFIFO | 0o600);
    w.mknod('socket', S_IFSOCK | 0o755);
    w.mknod('char', S_IFCHR | 0o666, 0x0103);
    w.mknod('block', S_IFBLK | 0o660, 0x0700);
    w.mknod('block-far', S_IFBLK | 0o660, 0x1_2345);
    w.mknod('regular', 0o100_644);
    w.mknod('fifo', S_IFIFO | 0o600);
    w.tree();
    w.open('fifo', O_WRONLY | 0o4000);
    w.open('socket', O_RDWR);
    w.run('sh', '-c', 'cat fifo & echo through >fifo; wait');
    w.unlink('fifo');
    w.unlink('char');
    w.list();
  },
  'what another user may do with names': (w) => {
    w.mkdir('closed', 0o755);
    w.make('closed/file', 'x', 0o600);
    w.mkdir('open');
    w.chmod('open', 0o777);
    w.mkdir('sticky');
    w.chmod('sticky', 0o1777);
    w.make('sticky/roots', 'r');
    w.mkdir('hidden', 0o700);
    w.make('hidden/file');
    w.as(NOBODY, () => {
      w.open('closed/new', O_RDWR | O_CREAT);
      w.open('closed/file', O_RDONLY);
      w.unlink('closed/file');
      w.rename('closed/file', 'open/file');
      w.mkdir('open/dir');
      w.make('open/mine', 'mine');
      w.symlink('mine', 'open/link');
      w.mknod('open/fifo', S_IFIFO | 0o600);
      w.unlink('sticky/roots');
      w.rename('sticky/roots', 'sticky/x');
      w.make('sticky/own');
      w.stat('hidden/file');
      w.list('hidden');
      w.access('closed/file', 4);
      w.access('closed', 2);
      w.mknod('open/char', S_IFCHR | 0o600, 0x0103);
    });
    w.tree();
  },
  'a folder that hands its group down': (w) => {
    w.mkdir('dir');
    w.chown('dir', 0, 50);
    w.chmod('dir', 0o2777);
    w.make('dir/file');
    w.mkdir('dir/sub');
    w.as(NOBODY, () => {
      w.make('dir/theirs');
      w.mkdir('dir/their-sub');
    });
    w.tree();
  },
  'whole trees by everyday tools': (w) => {
    w.run(
      'sh',
      '-c',
      'mkdir -p a/b/c && echo 1 >a/1 && echo 2 >a/b/2 && ln a/1 a/b/hard && ln -s ../1 a/b/sym',
    );
    w.run('cp', '-a', 'a', 'copy');
    w.run('diff', '-r', 'a', 'copy');
    w.run('tar', 'cf', 'a.tar', 'a');
    w.run('sh', '-c', 'mkdir out && tar xpf a.tar -C out && diff -r a out/a');
    w.run('sh', '-c', 'mv copy moved && rm -rf a && find . | sort');
    w.tree();
  },
};
