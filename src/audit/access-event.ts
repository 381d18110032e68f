import type { Caller, Personal } from './event.ts';

/**
 * A call as the proxy before its callee saw it. What the proxy tells is taken down as what it tells: of whom it stands for
 * alone, as who that is comes from its process.
 */
export type SeenCall = {
  /** The caller's SPIFFE ID, in a certificate that the proxy verified; empty when there was none. */
  readonly source: string;
  /** Whom the proxy stands for. */
  readonly destination: string;
  /** `http` or `tcp`. */
  readonly protocol: string;
  /** One of a closed list of HTTP methods, `OTHER`, or empty. */
  readonly method: string;
  readonly port: number;
  /** Serial of the peer certificate, lower-case hex, or empty. */
  readonly sourceSerial: string;
  /** `denied`: by policy, at this proxy. `error`: no answer, or one with a status of 500 or more. `ok`: any other answer. */
  readonly outcome: 'ok' | 'denied' | 'error';
  /** Envoy's short names, such as `UF,URX`; empty for none. */
  readonly flags: string;
  /** `namespace/name rule[n]`, as it was told with the decision, or empty. */
  readonly rule: string;
  /** The proxy. */
  readonly caller: Caller;
};

/** What became of one call. */
export type OutcomeEvent = SeenCall & {
  readonly type: 'outcome';
  /** When the call was over, by the clock of the proxy. */
  readonly time: Date;
  /** Of the decision about it, or empty. */
  readonly decisionId: string;
  /** HTTP; 0 when there was no answer. */
  readonly status: number;
  /** Why it was answered so, in Envoy's words, such as `via_upstream`. */
  readonly details: string;
  /** `address:port` of who answered, or empty. */
  readonly upstream: string;
  readonly durationMs: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
};

/** Calls that agree in all that is told of them in {@link SeenCall}, counted together. */
export type OutcomesEvent = SeenCall & {
  readonly type: 'outcomes';
  /** Of the last of them, like `to`. */
  readonly time: Date;
  readonly from: Date;
  readonly to: Date;
  /** At least 1. */
  readonly count: number;
  /** `2xx`, or empty when there was no answer. */
  readonly statusClass: string;
  /** Of the one that took longest. */
  readonly longestMs: number;
  /** Of all of them together. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
};

/**
 * Connections to a proxy that agree in all but their time, their serial where nobody verified it, and their address, counted
 * together.
 */
export type ConnectionsEvent = {
  readonly type: 'connections';
  /** Of the end of the last of them, like `to`. */
  readonly time: Date;
  readonly from: Date;
  readonly to: Date;
  /** At least 1. */
  readonly count: number;
  /**
   * `mtls`: the peer has proven an identity of this trust domain. `foreign`: it has proven a certificate that names none.
   * `plaintext`: there was no TLS. `tls_failed`: the handshake failed, or was not seen to end.
   */
  readonly kind: 'mtls' | 'foreign' | 'plaintext' | 'tls_failed';
  /** A SPIFFE ID that the proxy verified, or empty. */
  readonly source: string;
  /** Of the verified certificate, lower-case hex, or empty. */
  readonly sourceSerial: string;
  /**
   * What the peer said to be and nobody verified, which is never an identity: whoever can connect may say anything. `*` for
   * names that are told together, as there were too many of them.
   */
  readonly claimedSource: string;
  /** Of the last certificate that was not verified, lower-case hex, or empty. */
  readonly claimedSerial: string;
  /** Why the handshake failed, or empty. */
  readonly failure: HandshakeFailure | '';
  readonly destination: string;
  readonly port: number;
  /** Of the last of them, `address:port`. */
  readonly sourceAddress: Personal;
  /** The proxy. */
  readonly caller: Caller;
};

/**
 * Something that must not be. `unknown_certificate`: a proxy accepted a certificate of this trust domain that the log has no
 * issuance of, or one that is not what its issuance says. Either somebody else has a key of the CA, or the log lacks what it had.
 */
export type AlarmEvent = {
  readonly type: 'alarm';
  readonly time: Date;
  readonly kind: 'unknown_certificate';
  /** Lower-case hex. */
  readonly serial: string;
  /**
   * SHA-256 of what was signed of the certificate, lower-case hex, of one that has the serial of another which the log has an
   * issuance of; absent for a serial that it has none of.
   */
  readonly sourceTbsSha256?: string;
  /** The SPIFFE ID in the certificate. */
  readonly claimedSource: string;
  /** Whom the proxy that accepted it stands for. */
  readonly destination: string;
  /** The type of the event that it was noticed in. */
  readonly seenIn: string;
  /** `address:port`, or empty when it was not told. */
  readonly sourceAddress: Personal;
  /** The proxy. */
  readonly caller: Caller;
};

/** Why a TLS handshake with a proxy did not come to its end. `unfinished`: the peer went away. */
export const handshakeFailures = [
  'certificate_expired',
  'certificate_not_yet_valid',
  'certificate_revoked',
  'unknown_issuer',
  'unknown_trust_domain',
  'wrong_name',
  'no_certificate',
  'not_tls',
  'no_common_protocol',
  'refused_by_peer',
  'unfinished',
  'other',
] as const;
export type HandshakeFailure = (typeof handshakeFailures)[number];
