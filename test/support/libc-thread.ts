/** A thread that makes a call through libc and ends. */
import { close, EFD_CLOEXEC, eventfd } from '../../src/fs/libc.js';

close(eventfd(0, EFD_CLOEXEC));
