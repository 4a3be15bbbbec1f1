import type { Task } from '../../src/broker/scheduler/task.js';
import { bytes, millis } from '../../src/leaves/units.js';

export const taskExample: Task = {
  id: 't1',
  number: 1,
  vm: 'vm1',
  images: ['vm1.raw'],
  source: 'a',
  target: 'b',
  priority: 0,
  important: false,
  danger: 3,
  warning: 4,
  writeRate: 0,
  driver: 'none',
  late: false,
  admission: 'admitted',
  bytesTotal: bytes(1000),
  state: { kind: 'waiting' },
  reason: 'admitted',
  attempt: 0,
  vmMoved: false,
  cancelWanted: false,
  submittedAt: millis(1_900_000_000_000),
};
