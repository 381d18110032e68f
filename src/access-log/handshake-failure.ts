import type { HandshakeFailure } from '../audit/access-event.ts';

/**
 * Sorts what Envoy says of a failed handshake. Its words hold names that the peer chose, so that they are not kept; a peer
 * whose name holds our words is told for something else, and is no less refused.
 * @param reason `downstream_transport_failure_reason`; empty when the connection ended without one
 */
export function sortFailure(reason: string): HandshakeFailure {
  if (reason === '') return 'unfinished';
  // Blanks are underscores in some of Envoy's places.
  const words = reason.slice(0, maxReason).replaceAll('_', ' ').toLowerCase();
  return signs.find(([, sign]) => words.includes(sign))?.[0] ?? 'other';
}

// Before those that may hold names: a peer could else choose among all of them.
const signs: readonly (readonly [HandshakeFailure, string])[] = [
  ['no_certificate', 'peer did not return a certificate'],
  ['not_tls', 'openssl internal:http request'],
  ['not_tls', 'openssl internal:https proxy request'],
  ['not_tls', 'openssl internal:wrong version number'],
  ['no_common_protocol', 'unsupported protocol'],
  ['no_common_protocol', 'no shared cipher'],
  ['no_common_protocol', 'no application protocol'],
  ['certificate_expired', 'certificate has expired'],
  ['certificate_not_yet_valid', 'certificate is not yet valid'],
  ['certificate_revoked', 'certificate revoked'],
  ['unknown_trust_domain', 'no trust bundle store'],
  ['unknown_issuer', 'unable to get local issuer certificate'],
  ['unknown_issuer', 'unable to get issuer certificate'],
  ['unknown_issuer', 'unable to verify the first certificate'],
  ['unknown_issuer', 'self signed certificate'],
  ['unknown_issuer', 'self-signed certificate'],
  ['wrong_name', 'san match'],
  ['refused_by_peer', 'alert'],
];
const maxReason = 2_048;
