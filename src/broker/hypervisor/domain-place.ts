/** Where a VM is, by what the libvirts of both hosts say of its domain; pure. */
import type { MigrateFsError } from '../../leaves/errors.js';
import type { DomainState } from './virsh.js';

/** What one libvirt says of the domain. */
export type Sight =
  | ({ readonly kind: 'present' } & DomainState)
  | { readonly kind: 'absent' }
  | { readonly kind: 'unreachable'; readonly error: MigrateFsError };

/**
 * `settled` is false where it may be the moment between two steps of libvirt: look again, and believe it only when it
 * stays. `leftover`: the target keeps a domain that never ran.
 */
export interface Place {
  readonly kind: 'source' | 'target' | 'nowhere' | 'unknown';
  readonly settled: boolean;
  readonly leftover: boolean;
}

/** Reasons of a paused domain that is not there yet, or was about to leave. */
const ARRIVING = ['starting up', 'migrating'];
const LEAVING = 'migrating';

type Activity = DomainState['activity'] | 'unreachable';

/** A domain that is only defined does as little as none. */
const activityOf = (sight: Sight): Activity =>
  sight.kind === 'present' ? sight.activity : sight.kind === 'absent' ? 'inactive' : 'unreachable';

const place = (kind: Place['kind'], settled: boolean, leftover = false): Place => ({
  ...{ kind, settled, leftover },
});

const reasonOf = (sight: Sight): string => (sight.kind === 'present' ? sight.reason : '');

/** `source` has no outgoing migration. */
export const placeOf = (source: Sight, target: Sight): Place => {
  const there = activityOf(target);
  const here = activityOf(source);
  switch (here) {
    case 'running':
      // Both run where libvirt at the source lost the target at the very end, and let its own go on.
      if (there === 'running') return place('unknown', false);
      return there === 'paused' ? place('source', false, true) : place('source', true);
    case 'paused':
      if (there === 'running') return place('target', false);
      if (there === 'paused') return place('unknown', false);
      // Stopped for a migration, it may have been given away.
      if (there === 'unreachable' && reasonOf(source) === LEAVING) return place('unknown', true);
      return place('source', there === 'unreachable' || reasonOf(source) !== LEAVING);
    case 'inactive':
      if (there === 'running') return place('target', true);
      if (there === 'paused')
        return ARRIVING.includes(reasonOf(target)) ? place('unknown', false) : place('target', true);
      return there === 'inactive' ? place('nowhere', false) : place('unknown', true);
    case 'unreachable':
      return place(there === 'running' ? 'target' : 'unknown', true);
    default:
      return here satisfies never;
  }
};

/** For an error: `paused (migrating)`. */
export const sightWords = (sight: Sight): string => {
  if (sight.kind === 'absent') return 'not defined';
  if (sight.kind === 'unreachable') return sight.error.message;
  const activity = sight.activity === 'inactive' ? 'switched off' : sight.activity;
  return sight.reason === '' ? activity : `${activity} (${sight.reason})`;
};
