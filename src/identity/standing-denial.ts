import type { SpiffeId } from '../spiffe/id.ts';
import type { BanKind } from './ban.ts';
import type { BanList, BanSubject } from './ban-list.ts';

/**
 * Why a call is denied before any policy is asked: a ban of its caller, of the caller's certificate or key, or of its
 * destination. Undefined when none holds, which allows nothing.
 * @returns one sentence for the log: lower case, no full stop, the reason of the ban included
 */
export function findStandingDenial(
  bans: BanList,
  source: BanSubject,
  destination: SpiffeId,
  now: Date,
): string | undefined {
  const ofSource = bans.find(source, now);
  if (ofSource !== undefined) return `${subjects[ofSource.kind]} is banned: ${ofSource.reason}`;
  const ofDestination = bans.find({ id: destination }, now);
  return ofDestination === undefined ? undefined : `the destination is banned: ${ofDestination.reason}`;
}

const subjects: Readonly<Record<BanKind, string>> = {
  'spiffe-id': 'the caller',
  serial: "the caller's certificate",
  key: "the caller's key",
};
