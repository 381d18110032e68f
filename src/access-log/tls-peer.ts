import type { ConnectionsEvent, HandshakeFailure } from '../audit/access-event.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import type { AccessLogCommon, TLSProperties_CertificateProperties } from '../wire/access_log.ts';
import { sortFailure } from './handshake-failure.ts';

/** Who is at the other end of a connection to a proxy. */
export type TlsPeer = Pick<
  ConnectionsEvent,
  'kind' | 'source' | 'sourceSerial' | 'claimedSource' | 'claimedSerial'
> & { readonly failure: HandshakeFailure | '' };

/**
 * Tells a verified peer from one that only claims to be somebody.
 * @param hasSpoken whether bytes of the application went one way or the other, or a request was read. INVARIANT: a peer is
 * verified only then: a client that sends somebody's certificate and goes before it has proven to hold the key leaves an
 * entry without any failure.
 */
export function readTlsPeer(common: AccessLogCommon, hasSpoken: boolean, trustDomain: TrustDomain): TlsPeer {
  const { tlsProperties, downstreamTransportFailureReason: reason } = common;
  if (tlsProperties === undefined && reason === '') return { ...nobody, kind: 'plaintext' };
  const uris = urisOf(tlsProperties?.peerCertificateProperties);
  // Of several, which none of ours has, the one that pretends to be of ours.
  const uri = uris.find((one) => one.startsWith(`${trustDomain.id}/`)) ?? uris[0] ?? '';
  const serial = readSerial(common);
  if (reason !== '' || !hasSpoken) {
    const claims = { claimedSource: cut(uri, maxClaim), claimedSerial: serial };
    return { ...nobody, ...claims, kind: 'tls_failed', failure: sortFailure(reason) };
  }
  const id = uris.length === 1 ? parseId(uri) : undefined;
  const kind = id !== undefined && id.trustDomain.name === trustDomain.name ? 'mtls' : 'foreign';
  if (id !== undefined) return { ...nobody, kind, source: id.text, sourceSerial: serial };
  return { ...nobody, kind, sourceSerial: serial, claimedSource: cut(uri, maxClaim) };
}

/** The identity in the certificate that the proxy has shown; undefined when there is none. */
export function readOwnUri(common: AccessLogCommon): string | undefined {
  return urisOf(common.tlsProperties?.localCertificateProperties)[0];
}

/** At most `max` characters, never half of one. */
export function cut(text: string, max: number): string {
  return (text.length > max ? `${text.slice(0, max - 1)}…` : text).toWellFormed();
}

function urisOf(certificate: TLSProperties_CertificateProperties | undefined): readonly string[] {
  if (certificate === undefined) return [];
  // Names of DNS are read as empty ones.
  return certificate.subjectAltName.map(({ uri }) => uri).filter((uri) => uri !== '');
}

/** Of the peer's certificate: Envoy has no field for it, so that our bootstrap sends it along as a tag. */
function readSerial({ customTags }: AccessLogCommon): string {
  const serial = customTags.find(({ key }) => key === peerSerialTag)?.value ?? '';
  if (/^[0-9a-f]{1,40}$/i.test(serial)) return serial.toLowerCase();
  // INVARIANT: a forger escapes no look-up with a number that no CA may give: it stays one that nobody gave.
  return /^-?[0-9a-f]+$/i.test(serial)
    ? serial.slice(-62).replace('-', '').toLowerCase().padStart(64, 'f')
    : '';
}

function parseId(uri: string): SpiffeId | undefined {
  const known = parsed.get(uri);
  if (known !== undefined) return known;
  try {
    const id = SpiffeId.parse(uri);
    if (parsed.size >= maxParsed) parsed.clear();
    parsed.set(uri, id);
    return id;
  } catch {
    return undefined;
  }
}

/** The same few callers come with every call. */
const parsed = new Map<string, SpiffeId>();
const maxParsed = 4_096;

const nobody = { source: '', sourceSerial: '', claimedSource: '', claimedSerial: '', failure: '' } as const;
const peerSerialTag = 'peer_serial';
const maxClaim = 512;
