/** Why libvirt does not move a VM, with what to do about it. */
import { MigrateFsError } from '../../leaves/errors.js';
import type { MoveJob } from '../scheduler/hypervisor-driver.js';
import type { DomainDisk } from './virsh.js';

const REMEDIES: readonly (readonly [RegExp, string])[] = [
  [
    /unable to connect to server|failed to connect to the hypervisor|Cannot recv data|authentication failed/i,
    "libvirt on the source itself connects to the target: try virsh --connect with the driver's peer URI there",
  ],
  [
    /Cannot access storage file|Could not open|No such file or directory/i,
    'the paths of all disks must be the same on both hosts, below the mounts',
  ],
  [
    /address resolution failed|Unable to resolve|Name or service not known|hostname on destination resolved to localhost/i,
    'say with migrate-uri where the target takes the VM, such as tcp://{target}',
  ],
  [/same host|UUID/i, 'give each libvirt a host_uuid of its own (libvirtd.conf)'],
  [/unsupported configuration|guest CPU/i, 'the hosts must offer the same machine and CPU'],
];

/** `place` is appended where the VM is not simply where it was. */
export const failureOf = (job: MoveJob, complaint: string, place: string): MigrateFsError => {
  const remedy = REMEDIES.find(([pattern]) => pattern.test(complaint))?.[1];
  return new MigrateFsError(
    'ABORTED',
    `libvirt on ${job.source} did not move ${job.vm}: ${complaint}${place}${remedy === undefined ? '' : `: ${remedy}`}`,
  );
};

/** A disk that others serve needs nothing of the host; one that cannot be written needs no fence. */
const concerns = ({ type, device, source }: DomainDisk): boolean =>
  type !== 'network' && (device === 'disk' || device === 'lun') && source !== '' && source !== '-';

/**
 * With `--unsafe` libvirt does not ask whether both hosts have the same disks; the fence answers that, but only for the
 * images of this migration. FAILED_PRECONDITION names a disk that is none of them.
 */
export const assertDisksMove = ({ vm, images }: MoveJob, disks: readonly DomainDisk[]): void => {
  const other = disks.find(
    (disk) => concerns(disk) && !images.some((image) => disk.source.endsWith(`/${image}`)),
  );
  if (other)
    throw new MigrateFsError(
      'FAILED_PRECONDITION',
      `disk ${other.target} of ${vm} (${other.source}) is not among the images of the task: submit it with them, or, ` +
        "where both hosts share it, set the driver's other-disks",
    );
};
