import { MeshError } from '../errors.ts';
import type { CheckPresented } from '../grpc/tls-svid.ts';
import { mayRenewOverNetwork, type RegistrationEntry } from '../identity/entry.ts';
import type { Attestation } from '../identity/evidence.ts';
import { parseSelector } from '../identity/selector.ts';
import type { SignX509Item } from '../wire/node.ts';
import { callerOf } from './event-shipment.ts';
import type { NodePeer } from './node-check.ts';

type Reported = Pick<SignX509Item, 'selectors' | 'caller'>;

/**
 * What the agent was shown by somebody whose process nobody has seen; proven again here.
 * @throws MeshError `certificate_*`, `identity_none`, `identity_banned`, `message_invalid`
 */
export function presentedAttestation(
  check: CheckPresented | undefined,
  { node, leaf }: NodePeer,
  entry: RegistrationEntry,
  { presented: certificates, caller }: SignX509Item,
): Attestation {
  const presented = check?.({ certificates });
  if (presented === undefined) throw new MeshError('certificate_unusable', 'certificates are not renewed so');
  if ('refused' in presented) throw new MeshError(presented.code, presented.refused);
  if (!presented.id.equals(entry.spiffeId) || !mayRenewOverNetwork(entry)) {
    throw new MeshError(
      'identity_none',
      'the entry does not let this certificate be renewed over the network',
    );
  }
  const { pid, uid, gid } = callerOf(node.name, caller);
  return {
    selectors: [],
    presented,
    caller: { pid, uid, gid, node: node.name, nodeCertificate: leaf.serial, certificate: presented.serial },
  };
}

/**
 * What the agent attested. It is trusted for its own entries, and still it has to have seen what the entry asks for.
 * @throws MeshError `identity_none`, `message_too_large`, `message_invalid`, `selector_invalid`
 */
export function attestationOf(
  { node, leaf }: NodePeer,
  entry: RegistrationEntry,
  reported: Reported,
): Attestation {
  if (reported.selectors.length > maxReported) {
    throw new MeshError('message_too_large', `a caller has at most ${maxReported} selectors`);
  }
  const seen = new Set(reported.selectors);
  if (entry.selectors.some(({ text }) => !seen.has(text))) {
    throw new MeshError('identity_none', 'the caller does not have the selectors of the entry');
  }
  return {
    selectors: [...seen].sort().map(parseSelector),
    caller: { ...callerOf(node.name, reported.caller), nodeCertificate: leaf.serial },
  };
}

const maxReported = 256;
