/*
 * What the test guest runs: writes records to its disks at a given rate, flushes now and then, and says on the console
 * what is acknowledged. Read by records.ts.
 *
 * writer RUN SLOTS RATE FLUSH DISK...
 *   RUN    number that tells this run's records from others
 *   SLOTS  records that fit a disk: a record goes to a slot that its number decides
 *   RATE   records a second, 0: as fast as they are taken
 *   FLUSH  records between two flushes
 *
 * A record is 4096 bytes, little endian: magic, sequence number, slot, run (64 bits each), 507 words made from the number,
 * and the CRC-32 of all that as the last word's low half. Lines on stdout:
 *   R            it has begun
 *   A n t        every record up to n is flushed; t: milliseconds of its clock
 *   H n t        alive, n written (not flushed); at most every 10 ms
 *   E n text     a write or flush failed
 *   Q n          ended after a 'q' on stdin, everything up to n flushed
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RECORD 4096
#define WORDS (RECORD / 8)
#define MAGIC 0x4d46532d52454331ull
#define DISKS_MAX 8
#define HEARTBEAT_MS 10

static uint64_t mix(uint64_t x) { /* splitmix64, public domain by its author, Sebastiano Vigna */
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static uint32_t table[256];

static void make_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
}

static uint32_t crc(const unsigned char *data, size_t length) {
  uint32_t c = 0xffffffffu;
  while (length--) c = table[(c ^ *data++) & 255] ^ (c >> 8);
  return c ^ 0xffffffffu;
}

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void failed(uint64_t n, const char *what) {
  printf("E %llu %s: %s\n", (unsigned long long)n, what, strerror(errno));
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 6) return 2;
  uint64_t run = strtoull(argv[1], 0, 10), slots = strtoull(argv[2], 0, 10);
  uint64_t rate = strtoull(argv[3], 0, 10), flush = strtoull(argv[4], 0, 10);
  int disks = argc - 5, fds[DISKS_MAX];
  if (disks > DISKS_MAX || slots == 0 || flush == 0) return 2;
  for (int i = 0; i < disks; i++)
    if ((fds[i] = open(argv[5 + i], O_RDWR | O_DIRECT)) < 0) return failed(0, argv[5 + i]), 1;
  uint64_t *record;
  if (posix_memalign((void **)&record, RECORD, RECORD)) return 1;
  make_table();
  puts("R");
  fflush(stdout);
  uint64_t began = now_us(), beat = 0, n = 0, flushed = 0;
  struct pollfd input = {.fd = 0, .events = POLLIN};
  for (;;) {
    uint64_t t = now_us();
    if (t - beat >= HEARTBEAT_MS * 1000) {
      printf("H %llu %llu\n", (unsigned long long)n, (unsigned long long)(t / 1000));
      fflush(stdout);
      beat = t;
      char c;
      if (poll(&input, 1, 0) > 0 && read(0, &c, 1) == 1 && c == 'q') break;
    }
    if (rate && n * 1000000 / rate > t - began) {
      usleep(1000);
      continue;
    }
    /* What was missed during a pause is not caught up with. */
    if (rate && t - began > n * 1000000 / rate + 1000000) began = t - n * 1000000 / rate;
    uint64_t sequence = n + 1, hash = mix(sequence ^ mix(run));
    uint64_t slot = hash % slots;
    record[0] = MAGIC, record[1] = sequence, record[2] = slot, record[3] = run;
    for (int i = 4; i < WORDS - 1; i++) record[i] = hash + (uint64_t)i * 0x9e3779b97f4a7c15ull;
    record[WORDS - 1] = crc((unsigned char *)record, RECORD - 8);
    int disk = (int)(sequence % (uint64_t)disks);
    if (pwrite(fds[disk], record, RECORD, (off_t)(slot * RECORD)) != RECORD) {
      failed(sequence, "write");
      usleep(100000);
      continue; /* the same record again */
    }
    n = sequence;
    if (n - flushed >= flush) {
      int bad = 0;
      for (int i = 0; i < disks; i++) bad |= fdatasync(fds[i]) != 0;
      if (bad) {
        failed(n, "flush");
        return 1; /* what was written before is lost or not: nobody can tell */
      }
      flushed = n;
      printf("A %llu %llu\n", (unsigned long long)n, (unsigned long long)(now_us() / 1000));
      fflush(stdout);
    }
  }
  for (int i = 0; i < disks; i++)
    if (fdatasync(fds[i])) return failed(n, "flush"), 1;
  printf("Q %llu\n", (unsigned long long)n);
  fflush(stdout);
  return 0;
}
