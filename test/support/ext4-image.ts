/** A real guest disk: an ext4 image with files in it, written to and checked with e2fsprogs, without a loop device. */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from './random.js';
import { run, runOk } from './run.js';

const FILES_PER_FOLDER = 50;

/** SHA-256 of each file of a folder, by its path below it. */
export type Contents = Map<string, string>;

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Fills `folder` with `count` files of up to `sizeMax` bytes and returns what they hold. */
export const makeFiles = (folder: string, count: number, sizeMax: number, random: Random): Contents => {
  const contents: Contents = new Map();
  for (let file = 0; file < count; file++) {
    const parent = `folder-${Math.floor(file / FILES_PER_FOLDER)}`;
    mkdirSync(join(folder, parent), { recursive: true });
    const bytes = Buffer.alloc(1 + random.below(sizeMax));
    random.fill(bytes);
    const name = join(parent, `file-${file}`);
    writeFileSync(join(folder, name), bytes);
    contents.set(name, sha256(bytes));
  }
  return contents;
};

/** Makes an ext4 image of `size` bytes that holds the files of `folder`. */
export const makeExt4 = async (image: string, size: number, folder: string): Promise<void> => {
  await runOk('mkfs.ext4', ['-q', '-F', '-d', folder, image, `${Math.floor(size / 1024)}k`]);
};

/** Puts the file `from` into the image as `/name`, as a guest would: superblock, bitmaps, inode, directory, data. */
export const addFile = async (
  image: string,
  from: string,
  name: string,
  contents: Contents,
): Promise<void> => {
  const { stderr } = await runOk('debugfs', ['-w', '-R', `write ${from} ${name}`, image]);
  // debugfs reports failures in words only, after its version.
  const complaint = stderr.split('\n').slice(1).join(' ').trim();
  if (complaint) throw new Error(`debugfs: ${complaint}`);
  contents.set(name, sha256(readFileSync(from)));
};

/** What e2fsck says about the image, read only; empty when it is clean. */
export const ext4Faults = async (image: string): Promise<string> => {
  const { code, stdout, stderr } = await run('e2fsck', ['-f', '-n', image]);
  return code === 0 ? '' : `e2fsck ended with ${code}: ${stdout}${stderr}`;
};

/** Takes all files out of the image into `folder` and names those that are missing, or not as they were. */
export const differingFiles = async (
  image: string,
  folder: string,
  contents: Contents,
): Promise<readonly string[]> => {
  mkdirSync(folder, { recursive: true });
  await runOk('debugfs', ['-R', `rdump / ${folder}`, image]);
  const found = new Set(
    readdirSync(folder, { recursive: true, withFileTypes: true }).flatMap((entry) =>
      entry.isFile() ? [join(entry.parentPath, entry.name).slice(folder.length + 1)] : [],
    ),
  );
  return [...contents].flatMap(([name, digest]) =>
    found.has(name) && sha256(readFileSync(join(folder, name))) === digest ? [] : [name],
  );
};
